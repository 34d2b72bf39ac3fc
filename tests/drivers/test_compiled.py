"""Compiled plants where the package's folder cannot be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVERS = Path(__file__).resolve().parents[2] / "drivers"
KERNELS = {"circuit_kernels": "play", "plate_kernel": "respond"}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with the package, in which Python and numba can keep nothing."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(DRIVERS, tmp_path / "drivers", ignore=ignored)
    cache = tmp_path / "drivers" / "mock" / "physics" / "__pycache__"
    cache.write_text("a file where the folder should be")
    return tmp_path


def cache_paths(installed: Path, **environment: str) -> tuple[list[str], str]:
    """Import every kernel in a new process; return where its code will be kept, and the log."""
    lines = [
        f"from drivers.mock.physics.{m} import {f}; print({f}._cache.cache_path)"
        for m, f in KERNELS.items()
    ]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=installed,
        env={**kept, "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split(), run.stderr


def test_the_code_is_kept_in_the_users_cache_folder(installed: Path) -> None:
    cache = installed / "cache"
    paths, log = cache_paths(installed, XDG_CACHE_HOME=str(cache))
    assert len(paths) == len(KERNELS)
    assert all(Path(path).is_relative_to(cache) for path in paths)
    assert log == ""


def test_without_any_folder_it_is_compiled_all_the_same(installed: Path) -> None:
    nowhere = str(installed / "drivers" / "mock" / "physics" / "__pycache__" / "below a file")
    paths, log = cache_paths(installed, XDG_CACHE_HOME=nowhere)
    assert paths == ["None"] * len(KERNELS)
    assert "NUMBA_CACHE_DIR would help" in log

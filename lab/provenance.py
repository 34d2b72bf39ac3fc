"""Where a job's numbers come from: code, packages, machine, bench, seeds, calibrations, twins.

Plain JSON data. Neither passwords in addresses nor settings that sound like secrets are kept, and a
user's home folder is written as ~.
"""

import hashlib
import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lab.bench_config import BenchConfig

DISTRIBUTION = "pnnlab"
_GIT_S = 5.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)
_HIDDEN = "(not kept)"
_NO_MATTER = {"priority", "deadline_s"}
_WHOLE = ("code", "python", "platform", "host")


def provenance(
    bench: Mapping[str, Any],
    config: BaseModel,
    *,
    calibrations: Mapping[str, str] | None = None,
    twins: Mapping[str, str] | None = None,
    started_s: float | None = None,
    finished_s: float | None = None,
    software: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return where the numbers of a job come from.

    bench: the `bench_record` of what measures it. calibrations: those in force at its start, by
    system. twins: digests by id. started_s, finished_s: seconds since the epoch. software: what
    `software_of_process` returned; it asks git, which takes some milliseconds (default: now).
    """
    plain = config.model_dump(mode="json")
    return {
        **(software_of_process() if software is None else software),
        "bench": bench,
        "config": public(plain),
        "seeds": dict(sorted(seeds(plain, bench))),
        "calibrations": dict(calibrations or {}),
        "twins": dict(twins or {}),
        "started_s": started_s,
        "finished_s": finished_s,
    }


def software_of_process() -> dict[str, Any]:
    """Return code, packages, python, platform and host of this process."""
    return {
        "code": code_version(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
    }


def code_version(folder: Path | None = None) -> dict[str, Any]:
    """Return the package's version and, of a git checkout, its commit and whether it is changed.

    folder: where the code lies; default: of this file. commit and changed are None elsewhere than
    in a checkout, and where git cannot tell.
    """
    root = Path(__file__).parents[1] if folder is None else folder
    code: dict[str, Any] = {"version": _version(), "commit": None, "changed": None}
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
        code["commit"] = commit
        code["changed"] = None if changed is None else bool(changed)
    return code


def _version() -> str | None:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *words: str) -> str | None:
    """Return what git says, None where it fails or there is none; it may not ask or write."""
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_S, env=quiet, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_versions(distribution: str = DISTRIBUTION) -> dict[str, str]:
    """Return the installed version of everything that the distribution requires, by name.

    Of its extras what is installed; the tools of its developers are left out.
    """
    try:
        required = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return {}
    return dict(sorted(_installed(required)))


def _installed(required: list[str]) -> Iterator[tuple[str, str]]:
    for text in required:
        name, extra = _NAME.match(text), _EXTRA.search(text)
        if name is None or (extra is not None and extra[1] == "dev"):
            continue
        try:
            yield name[0].lower(), metadata.version(name[0])
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed


def bench_record(bench: BenchConfig, text: str | None = None) -> dict[str, Any]:
    """Return the bench as it was read, its digests, and the config in full.

    text_digest: sha256 of the file's text, None where it is not given; measurement_digest: of what
    may change what is measured.
    """
    return {
        "name": bench.name,
        "text_digest": None if text is None else hashlib.sha256(text.encode()).hexdigest(),
        "measurement_digest": bench.measurement_digest(),
        "config": public(bench.model_dump(mode="json")),
    }


def seeds(config: Mapping[str, Any], bench: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield every seed by its dotted name: of the config, and of the bench's simulated rigs.

    bench: its `bench_record`.
    """
    yield from _seeds(config, "")
    for name, rig in bench["config"].get("rigs", {}).items():
        yield f"rigs.{name}.seed", rig["seed"]
        yield f"rigs.{name}.device_seed", rig["device_seed"]


def _seeds(part: Mapping[str, Any], path: str) -> Iterator[tuple[str, int]]:
    for key, value in part.items():
        if key == "seed":
            yield path + key, value
        elif isinstance(value, Mapping):
            yield from _seeds(value, f"{path}{key}.")


def public(value: Any, home: str | None = None) -> Any:
    """Return JSON data without secrets and without the name of a user's home folder."""
    home = str(Path.home()) if home is None else home
    if isinstance(value, Mapping):
        return {
            key: _HIDDEN if _SECRET.search(str(key)) and item else public(item, home)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [public(item, home) for item in value]
    if isinstance(value, str):
        shown = _CREDENTIALS.sub("", value)
        if len(home) < 2:
            return shown
        return re.sub(rf"(?<![\w.-]){re.escape(home)}(?=/|$)", "~", shown)
    return value


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what a rerun has other than the job before, in order; [] if nothing.

    Times and the config itself are not compared: a rerun may be given another one on purpose.
    """
    return [
        *(
            f"{name} {_told(then.get(name))} → {_told(now.get(name))}"
            for name in _WHOLE
            if then.get(name) != now.get(name)
        ),
        *_changed("", then.get("packages"), now.get("packages")),
        *_bench_changes(then.get("bench") or {}, now.get("bench") or {}),
        *_changed("", then.get("seeds"), now.get("seeds")),
        *_changed("calibration of ", then.get("calibrations"), now.get("calibrations")),
        *_changed("twin ", then.get("twins"), now.get("twins")),
    ]


def config_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words which keys of the job's own config differ, in order; [] if none.

    Those that change no number, when it runs and until when, are not compared.
    """
    a, b = (dict(_leaves(part.get("config") or {}, "")) for part in (then, now))
    seen = {*a, *b} - _NO_MATTER
    return list(_changed("", {k: a.get(k) for k in seen}, {k: b.get(k) for k in seen}))


def _changed(what: str, then: Any, now: Any) -> Iterator[str]:
    a, b = then or {}, now or {}
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            yield f"{what}{key} {_told(a.get(key))} → {_told(b.get(key))}"


def _bench_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of the bench that differ, where what is measured may."""
    if then.get("measurement_digest") == now.get("measurement_digest"):
        return
    a, b = (dict(_leaves(part.get("config") or {}, "")) for part in (then, now))
    keys = sorted(key for key in {*a, *b} if a.get(key) != b.get(key))
    yield "bench changed: " + (", ".join(keys) or "in what is not kept")


def _leaves(part: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in part.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _told(value: Any) -> str:
    """Return a version, a commit or a digest in few characters."""
    if isinstance(value, Mapping):
        commit = value.get("commit")
        where = f" ({commit[:12]}{', changed' if value.get('changed') else ''})" if commit else ""
        return f"{value.get('version') or 'unknown'}{where}"
    if value is None or value == "":
        return "none"
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text

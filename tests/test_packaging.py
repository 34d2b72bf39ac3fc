"""The installation: four packages from one place, every version pinned, the container's words."""

import importlib
import re
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("lab", "drivers", "server", "twins")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name: version for name, version in pairs}


def direct_dependencies() -> list[str]:
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    return [normalised(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements]


def test_all_four_packages_come_from_one_folder():
    folders = {Path(importlib.import_module(name).__file__).parents[1] for name in PACKAGES}
    assert folders == {ROOT}


def test_constraints_pin_every_direct_dependency():
    assert set(direct_dependencies()) <= set(pins())


def test_constraints_are_exact_and_portable():
    for name, version in pins().items():
        assert name == normalised(name)
        # No local part such as "+cpu": it would not be found on the public index.
        assert re.fullmatch(r"\d+(\.\w+)*", version), f"{name}=={version}"


def test_torch_is_pinned_and_torchvision_absent():
    assert pins()["torch"] == "2.13.0"
    assert "torchvision" not in pins()


def test_constraints_pin_everything_that_the_direct_dependencies_need():
    seen: set[str] = set()
    waiting = [*direct_dependencies()]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for requirement in metadata.requires(name) or []:
            if needed := needed_here(requirement):
                waiting.append(needed)
    assert seen <= set(pins())


def needed_here(requirement: str) -> str | None:
    """Return the required name, or None where its marker excludes this environment."""
    parsed = Requirement(requirement)
    if parsed.marker and not parsed.marker.evaluate({"extra": ""}):
        return None
    return normalised(parsed.name)


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_direct_dependencies_carry_ranges(requirement):
    # only the engine of the jobs is tied to one version, whose every release is to be tried first
    exact = {"dbos"}
    range_or_pin = r"==\d" if Requirement(requirement).name in exact else r">=\d.*,<\d"
    assert re.search(range_or_pin, requirement)


def test_container_gets_every_file_that_it_copies():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, pattern) for pattern in kept), source


def test_container_has_every_bench_file():
    words = {
        word for line in (ROOT / "Dockerfile").read_text().splitlines() for word in line.split()
    }
    assert {path.name for path in ROOT.glob("bench*.toml")} <= words


def test_container_installs_pinned_packages_and_is_not_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert any("pip install" in line and "-c constraints.txt" in line for line in lines)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["pnnlab"]


def test_the_third_party_source_is_of_the_pinned_version():
    pin = re.search(r"^pymeasure==(\S+) ", (ROOT / "tests/third-party.txt").read_text(), re.M)[1]
    assert pin == pins()["pymeasure"]
    assert f"/pymeasure-{pin}.tar.gz" in (ROOT / "Makefile").read_text()

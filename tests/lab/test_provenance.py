"""Where a job's numbers come from: complete, plain, without secrets, and comparable."""

import json
import subprocess
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.bench_config import BenchConfig, load_bench
from lab.config import TrainConfig
from lab.jobs.configs import CalibrateConfig
from lab.provenance import (
    bench_record,
    code_version,
    differences,
    package_versions,
    provenance,
    public,
)

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return provenance(
        bench_record(BENCH, "name = 'x'"),
        TrainConfig(seed=4),
        calibrations={"optics": "monday"},
        twins={"abc": "0" * 64},
        started_s=1.0,
        finished_s=2.0,
    )


def test_it_is_plain_json(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_everything_that_decides_the_numbers_is_there(found: dict[str, Any]) -> None:
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["code"]["version"] == metadata.version("pnnlab")
    assert found["bench"]["measurement_digest"] == BENCH.measurement_digest()
    assert BenchConfig.model_validate(found["bench"]["config"]) == BENCH
    assert found["config"] == TrainConfig(seed=4).model_dump(mode="json")
    assert found["seeds"] == {
        "rigs.optics.device_seed": 0,
        "rigs.optics.seed": 0,
        "seed": 4,
        "twin.seed": 0,
    }
    assert (found["calibrations"], found["twins"]) == ({"optics": "monday"}, {"abc": "0" * 64})
    assert found["host"]
    assert found["python"]
    assert found["platform"]


def test_packages_are_those_that_are_required_and_installed() -> None:
    versions = package_versions()
    assert {"torch", "numpy", "fastapi", "sqlalchemy"} <= versions.keys()
    assert not {"mypy", "ruff", "pytest"} & versions.keys()
    assert package_versions("no-such-distribution") == {}


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


def test_a_checkouts_commit_is_told_and_whether_it_is_changed(tmp_path: Path) -> None:
    assert code_version(tmp_path)["commit"] is None
    git(tmp_path, "init")
    file = tmp_path / "a.py"
    file.write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "first")
    clean = code_version(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["changed"] is False
    file.write_text("2")
    assert code_version(tmp_path) == {**clean, "changed": True}


def test_a_checkout_that_git_cannot_read_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    code = code_version(tmp_path)
    assert (code["commit"], code["changed"]) == (None, None)


def test_no_secret_and_no_home_is_kept() -> None:
    shaper = BENCH.instruments["shaper"].model_copy(
        update={
            "address": "http://ann:hunter2@192.168.1.20",
            "settings": {"api_token": "hunter2", "file": f"{Path.home()}/lab/filter.npz"},
        }
    )
    instruments = {**BENCH.instruments, "shaper": shaper}
    record = bench_record(BENCH.model_copy(update={"instruments": instruments}))
    kept = record["config"]["instruments"]["shaper"]
    assert kept["address"] == "http://192.168.1.20"
    assert kept["settings"] == {"api_token": "(not kept)", "file": "~/lab/filter.npz"}
    assert "hunter2" not in json.dumps(record)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/ann", "~"),
        ("replay:///home/ann/day.rec", "replay://~/day.rec"),
        ("/home/anna/x", "/home/anna/x"),
        ("/mnt/home/ann/x", "/mnt/home/ann/x"),
    ],
)
def test_only_the_home_folder_itself_is_shortened(text: str, kept: str) -> None:
    assert public(text, home="/home/ann") == kept


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text("abc:/", max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner),
    )
)
def test_what_is_no_secret_is_kept_as_it_is(value: Any) -> None:
    assert public(value, home="/home/ann") == value


def test_a_rerun_on_the_same_lab_has_no_differences(found: dict[str, Any]) -> None:
    later = {**deepcopy(found), "started_s": 9.0, "finished_s": 10.0}
    assert differences(found, later) == []


def test_what_a_rerun_has_other_is_told(found: dict[str, Any]) -> None:
    now = deepcopy(found)
    now["packages"] |= {"torch": "99.0", "new": "1"}
    now["code"] = {"version": "9.9", "commit": "f" * 40, "changed": True}
    now["calibrations"] = {"optics": "tuesday"}
    now["twins"] = {"abc": "1" * 64}
    now["seeds"] |= {"seed": 5}
    told = differences(found, now)
    assert told[0].endswith("→ 9.9 (ffffffffffff, changed)")
    assert f"torch {found['packages']['torch']} → 99.0" in told
    assert "new none → 1" in told
    assert told[-3:] == [
        "seed 4 → 5",
        "calibration of optics monday → tuesday",
        "twin abc 000000000000 → 111111111111",
    ]


def test_another_bench_is_told_by_its_keys(found: dict[str, Any]) -> None:
    rig = BENCH.rigs["optics"].model_copy(update={"gap": 2.0})
    bench = BENCH.model_copy(update={"rigs": {"optics": rig}})
    other = provenance(bench_record(bench), TrainConfig(seed=4))
    assert "bench changed: rigs.optics.gap" in differences(found, other)


def test_a_bench_that_measures_the_same_is_no_difference(found: dict[str, Any]) -> None:
    slow = BENCH.model_copy(update={"watchdog_s": 99.0})
    now = {**found, "bench": bench_record(slow)}
    assert differences(found, now) == []


def test_other_kinds_of_job_have_seeds_too() -> None:
    assert (
        provenance(bench_record(BENCH), CalibrateConfig(seed=7), software={})["seeds"]["seed"] == 7
    )

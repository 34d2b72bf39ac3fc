"""The command `pnnlab compare`, on a bench file and on a service."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from once_killed import train_killed_once
from server.cli import app
from server.demo import open_service

BENCH = Path(__file__).parents[2] / "bench.toml"
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra ray: Ray is not installed"
)
SMALL = ["--methods", "pat-refit,in-silico", "--seeds", "1", "--epochs", "1", "--layers", "1"]
SMALL += ["--twin-kind", "neural", "--controls", "none"]


def run(*options: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["compare", *options], catch_exceptions=False)
    return found.exit_code, found.stdout, found.stderr


def test_on_a_bench_file(data_folder: Path) -> None:
    code, out, err = run(
        *SMALL, "--bench", str(BENCH), "--gap", "0.5", "--twin-rows", "20", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert set(found) >= {"system", "task", "split", "gap", "twin_rows", "baseline", "methods"}
    assert (found["twin_rows"], found["gap"]) == (20, 0.5)
    assert found["baseline"]["logistic_regression"]["mean"] > 0.9
    refit, silico = found["methods"]["pat-refit"], found["methods"]["in-silico"]
    # 175 training samples set the scales, and then there is one epoch of them
    assert (refit["rows"], silico["rows"]) == (350, 0)
    assert refit["instrument_hours"] == pytest.approx(350 * 0.75 / 3600)
    assert len(silico["twin_accuracy"]) == 1
    assert "twin_accuracy" not in refit
    assert "pat-refit seed 0: step 6 of 6, training accuracy" in err


def test_on_a_service_that_is_stopped_even_after_an_error(data_folder: Path) -> None:
    used: list[str] = []

    def use_it() -> None:
        with open_service(BENCH) as url:
            used.append(url)
            code, out, err = run(*SMALL, "--twin-rows", "20", "--url", url)
            assert code == 0, err
            assert re.search(r"^pat-refit +\d+\.\d %", out, re.MULTILINE)
            assert re.search(r"^logistic regression +9\d\.\d %", out, re.MULTILINE)
            assert "vowels on optics, gap 1, split random" in out
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        use_it()
    code, _, err = run(*SMALL, "--url", used[0])
    assert code == 1
    assert err.startswith(f"pnnlab: no answer from {used[0]}")


def test_a_service_has_its_own_bench() -> None:
    code, _, err = run(*SMALL, "--url", "http://127.0.0.1:9", "--gap", "1")
    assert code == 1
    assert err == "pnnlab: --url: bench, gap, device seed, workers and Ray are the service's\n"


@pytest.mark.parametrize("command", ["compare", "demo"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    option, folder = {"compare": "--figures", "demo": "--out"}[command], tmp_path / "file" / "x"
    done = CliRunner().invoke(app, [command, "--bench", str(BENCH), option, str(folder)])
    assert done.exit_code == 1
    assert done.stderr == f"pnnlab: {option} {folder}: cannot be written (Not a directory)\n"


def test_a_cluster_is_for_runs_here_and_counts_them_itself() -> None:
    code, _, err = run(*SMALL, "--url", "http://127.0.0.1:9", "--ray", "local")
    assert (code, err) == (
        1,
        "pnnlab: --url: bench, gap, device seed, workers and Ray are the service's\n",
    )
    code, _, err = run(*SMALL, "--workers", "2", "--ray", "local")
    assert code == 1
    assert err.startswith("pnnlab: --ray: how many runs at a time is the cluster's")


def test_the_cluster_of_the_environment_is_for_runs_that_say_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PNNLAB_RAY_ADDRESS", "nowhere")
    code, _, err = run(*SMALL, "--bench", str(BENCH))
    assert (code, err) == (1, "pnnlab: ray: 'nowhere' is neither auto, nor local, nor HOST:PORT\n")
    code, _, err = run(*SMALL, "--url", "http://127.0.0.1:9")
    assert err.startswith("pnnlab: no answer from http://127.0.0.1:9")


@needs_ray
def test_on_a_cluster_that_kills_a_run_the_result_stands_alone(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    monkeypatch.setattr("lab.comparison.local.train_alone", partial(train_killed_once, killed))
    options = ["--bench", str(BENCH), "--twin-rows", "20", "--json", "--ray", "local"]
    code, out, err = run(*SMALL, *options)
    assert code == 0, err
    assert killed.exists()
    assert [m["rows"] for m in json.loads(out)["methods"].values()] == [350, 0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--methods", "sorcery"], "methods.0"),
        (["--twin-rows", "many"], "twin_rows.0"),
        (["--bench", "nowhere.toml"], "nowhere.toml"),
        (["--bench", str(BENCH), "--gap", "9"], "gap"),
    ],
)
def test_what_cannot_be_used_is_one_line(options: list[str], reason: str) -> None:
    code, out, err = run(*options)
    assert (code, out) == (1, "")
    assert reason in err
    assert err.count("\n") == 1

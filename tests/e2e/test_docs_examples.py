"""The examples of the documentation, against a service on the simulated bench."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lab.comparison.local
import lab.datasets
import lab.twins
import tiny_jobs
from documentation import ROOT, TEXT, blocks, table
from drivers.errors import InstrumentTimeout
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from examples import execute, labels, pnnlab, serving, small_jobs, without_numbers
from lab.bench_config import load_bench
from lab.client import Client
from lab.jobs.nursery import Nursery
from twins.fitting import FitSettings


@pytest.fixture(scope="module")
def url(nursery: Nursery | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a bench whose systems stay faulted until somebody recovers them, as one test does."""
    bench = load_bench(ROOT / "bench.toml")
    by_hand = bench.scheduler.model_copy(update={"recovery_attempts": 0})
    by_hand_only = bench.model_copy(update={"scheduler": by_hand})
    folder = tmp_path_factory.mktemp("service")
    with small_jobs(nursery), serving(by_hand_only, folder) as url:
        yield url


def test_the_tutorial(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    _, check, serve, submit, jobs = "\n".join(blocks("tutorial.md", "sh")).split("\npnnlab ")
    assert serve.strip() == "serve"
    checked, trained = blocks("tutorial.md", "text")
    assert without_numbers(pnnlab(f"pnnlab {check}", url)) == without_numbers(checked)
    found = pnnlab(f"pnnlab {submit}", url)
    assert labels(found) == labels(trained)
    job = found.split()[1]
    assert f"{job}  succeeded" in pnnlab(f"pnnlab {jobs}", url)
    monkeypatch.chdir(tmp_path)
    for code in blocks("tutorial.md", "python"):
        execute(code, url)
    printed = capsys.readouterr().out
    assert "epoch 3 accuracy" in printed
    assert "on the device 0." in printed
    assert "brighter row by row" in printed
    assert (tmp_path / "network.pt").is_file()


def test_sharing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("how-to.md", "python", "Share an instrument")
    execute(code, url)
    reference, calibration = capsys.readouterr().out.splitlines()
    assert reference.startswith("reference ")
    assert calibration == "monday"


def test_recovering(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def time_out(spectrometer: YokogawaAQ6370) -> None:
        raise InstrumentTimeout(spectrometer.name, "no answer in 5 s")

    status, recover = blocks("how-to.md", "python", "Recover a faulted system")
    with Client(url) as client, monkeypatch.context() as patch:
        patch.setattr(YokogawaAQ6370, "measure", time_out)
        with pytest.raises(Exception, match="no answer in 5 s"):
            client.measure("optics", np.zeros((1, 50)), np.zeros((1, 50)))
    execute(status, url)
    assert "optics faulted" in capsys.readouterr().out
    execute(recover, url)
    assert capsys.readouterr().out == "ok\n"


def test_a_twins_report_is_listed_key_by_key(url: str) -> None:
    with Client(url) as client:
        job = client.fit_twin(task="digits")["id"]
        assert list(client.watch(job))[-1].data["state"] == "succeeded"
        report = client.result(job)["report"]
    assert table("A twin's report").keys() == report.keys()
    (meaning,) = table("A twin's report")["random"]
    assert set(report["random"]) <= set(re.findall(r"`(\w+)`", meaning))


def test_one_twin_for_several_jobs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("how-to.md", "python", "Fit one twin and use it for several jobs")
    execute(code, url)
    assert "shape_r2" in capsys.readouterr().out


def test_schedules(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = "Run jobs on a schedule"
    add, others = blocks("how-to.md", "sh", section)
    (code,) = blocks("how-to.md", "python", section)
    (tmp_path / "job.toml").write_text('task = "digits"\n')
    monkeypatch.chdir(tmp_path)
    for command in (add + others).splitlines():
        shown = pnnlab(command, url)
        if " run " in command:
            assert "succeeded" in pnnlab(f"pnnlab watch {shown.split()[1]}", url)
    execute(code, url)
    assert "T06:00:00+0" in capsys.readouterr().out
    with Client(url) as client:
        names = [schedule["name"] for schedule in client.schedules()]
        assert names == ["hourly", "morning", "sundays"]
        for name in names:
            client.remove_schedule(name)


def test_taking_the_data_out(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("how-to.md", "python", "Take the data out")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    execute(code, url)
    *_, labelled, numbers = capsys.readouterr().out.splitlines()
    assert labelled.startswith("('row', 'y_channel') W ")
    assert len(numbers.split("[")[1].split()) == 3  # epochs
    (commands,) = blocks("how-to.md", "sh", "Take the data out")
    monkeypatch.chdir(tmp_path)
    with Client(url) as client:
        (job,) = client.jobs(limit=1)
    said, written = (
        pnnlab(command.replace("JOB_ID", job["id"]), url) for command in commands.splitlines()
    )
    assert "measured rows are recorded" in said
    assert "written: rows.zarr" in written


def test_rows_without_driver_and_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("simulated-bench.md", "python")
    monkeypatch.chdir(ROOT)  # where bench.toml is
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["device"].rows == 0


def test_a_first_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("how-to.md", "python", "The first day with a real bench")
    monkeypatch.chdir(ROOT)  # where bench.toml is
    exec(code, {})
    assert capsys.readouterr().out.endswith("W not saturated\n")


def test_watching_for_drift(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("how-to.md", "python", "Watch for drift")
    monkeypatch.chdir(ROOT)  # where bench.toml is
    exec(code, {})
    assert "DriftEvent(" in capsys.readouterr().out


def test_a_network_of_ones_own(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = "Describe your own network"
    (network,) = blocks("how-to.md", "toml", section)
    (submit,) = blocks("how-to.md", "sh", section)
    (tmp_path / "network.toml").write_text(network)
    monkeypatch.chdir(tmp_path)
    assert "accuracy on the device" in pnnlab(submit, url, "--epochs", "1")
    with Client(url) as client:
        config = client.jobs()[0]["config"]
    assert (config["network"]["layers"], config["network"]["parallel"]) == (2, 2)
    assert [stage["kind"] for stage in config["network"]["last"]] == ["standardise", "linear"]


def test_data_of_ones_own(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = "Train on your own data"
    (table,) = blocks("how-to.md", "text", section)
    service, here = blocks("how-to.md", "sh", section)
    (tmp_path / "colours.csv").write_text(table)
    bench = str(ROOT / "bench.toml")
    monkeypatch.chdir(tmp_path)
    upload, submit = service.splitlines()
    task, *shown = pnnlab(upload, url).split()
    assert " ".join(shown) == "colours.csv: 8 rows, 3 features, 2 classes"
    watched = pnnlab(submit.replace("upload:TASK", task), url, "--watch", "--twin-rows", "20")
    assert "accuracy on the device" in watched
    small = "--seeds 1 --epochs 1 --layers 1 --twin-kind neural --twin-rows 20 --workers 1"
    fit = functools.partial(lab.twins.fit_system_twin, settings=FitSettings(steps=3))
    monkeypatch.setattr(lab.comparison.local, "fit_system_twin", fit)
    assert "in-silico" in pnnlab(here, url, "--bench", bench, *small.split())
    (code,) = blocks("how-to.md", "python", section)
    execute(code, url)
    printed = capsys.readouterr().out
    assert "60 rows ['cool', 'hot']" in printed
    assert "'mnist28', 'colours.csv', 'rooms']" in printed


def test_training_on_another_machine(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("how-to.md", "python", "Train on another machine")
    fit = functools.partial(lab.twins.fit_system_twin, settings=FitSettings(steps=3))
    monkeypatch.setattr(lab.twins, "fit_system_twin", fit)
    monkeypatch.setattr(lab.datasets, "load", tiny_jobs.small_dataset)
    execute(code, url)
    assert re.fullmatch(r"accuracy on the device [01]\.\d\d\n", capsys.readouterr().out)


def test_no_python_block_is_left_out() -> None:
    count = {page: len(blocks(page, "python")) for page in TEXT}
    assert {page: n for page, n in count.items() if n} == {
        "simulated-bench.md": 1,
        "tutorial.md": 2,
        "how-to.md": 10,
        "fourth-system.md": 7,  # six are parts of its file
    }

"""The demo: a service of its own, jobs over REST, a report, and nothing left behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lab.comparison.plan import Outcome
from lab.datasets import Dataset
from lab.errors import ConfigError, LabError
from lab.models import build_network
from lab.recipes import completed
from server import demo
from server.demo import open_service, run_demo
from server.interrupts import ended_by_signals

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench.toml"


def processes_with(word: str) -> list[int]:
    """Return the processes that have a word in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if word in file.read_text(errors="replace"):
                found.append(int(file.parent.name))
    return found


def test_four_jobs_a_table_and_a_report(
    data_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run_demo(BENCH, tmp_path / "demo", quick=True)
    assert found.note is None
    assert list(found.summary["methods"]) == ["pat-refit", "in-silico"]
    for method in found.summary["methods"].values():
        assert len(method["accuracy"]) == 2
    assert found.summary["methods"]["pat-refit"]["rows"] > 0
    assert found.summary["methods"]["in-silico"]["rows"] == 0
    assert found.summary["gap"] == 1.0
    html = found.report.read_text(encoding="utf-8")
    assert found.report == tmp_path / "demo" / "report.html"
    assert html.count("<svg") == 7
    assert "wavelength, nm" in html
    assert "all instruments simulated" in html
    shown = capfd.readouterr().err
    for run in ("pat-refit seed 0", "pat-refit seed 1", "in-silico seed 0", "in-silico seed 1"):
        assert re.search(rf"{run}: step (\d+) of \1, training accuracy 0\.\d\d", shown)


def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    bad = tmp_path / "bench.toml"
    bad.write_text("nome = 'a typing mistake'")
    with (
        pytest.raises(LabError, match=r"did not start.*bench\.toml.*nome"),
        open_service(bad),
    ):
        pytest.fail("a service without a bench was ready")


def test_real_instruments_are_left_alone(tmp_path: Path) -> None:
    real = BENCH.read_text().replace("mock://optics/shaper", "http://127.0.0.1:9")
    bench = tmp_path / "bench.toml"
    bench.write_text(real)
    with pytest.raises(ConfigError, match="simulated instruments only"):
        run_demo(bench, tmp_path, quick=True)


def test_without_the_vowels_it_says_so_and_takes_the_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[Any] = []

    def train(plan: Any, bench: Path, gap: float | None) -> Outcome:
        plans.append(plan)
        raise LabError("enough seen")

    monkeypatch.setattr(demo, "_train", train)
    monkeypatch.setenv("PNNLAB_DATA", str(tmp_path))
    with pytest.raises(LabError, match="enough seen"):
        run_demo(BENCH, tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "the digits are used" in line
    assert str(tmp_path) in line
    assert plans[0].task == "digits"
    # 1,213 digits train where 175 vowels do: as many rows on the device, not seven times as many
    assert 0.7 < plans[0].epochs * 1213 / (60 * 175) < 1.3


@pytest.mark.parametrize("task", ["vowels", "digits"])
def test_a_quick_demo_is_a_network_that_can_be_built(task: str) -> None:
    features, classes = (12, 7) if task == "vowels" else (49, 10)
    labels = np.arange(40) % classes
    dataset = Dataset(
        task, np.zeros((40, features)), labels, tuple("abcdefghij"[:classes]), None, "made up"
    )
    plan = demo._plan(dataset, quick=True)
    for config in plan.configs(plan.twin_fields(40)):
        network = completed(config, "optics").network
        sizes = {"x_size": 50, "theta_size": 50, "y_size": 50, "classes": classes}
        build_network(torch.add, nn.Identity(), network, features=features, **sizes, seed=0)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
def test_a_signal_ends_jobs_and_service(data_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "demo", "--bench", str(BENCH), "--json"]
    command += ["--out", str(tmp_path / "out")]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            assert first.startswith("twin: step 0 of ")
            assert len(processes_with(f"{tmp_path}/pnnlab-demo-")) == 1
            process.terminate()
            rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode not in (0, -signal.SIGTERM), rest
    assert "Traceback" not in rest[1]
    assert processes_with(f"{tmp_path}/pnnlab-demo-") == []
    assert list(tmp_path.glob("pnnlab-demo-*")) == []
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_as_ctrl_c_does(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=number.name), ended_by_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from server import cli_demo

    summary = {"system": "optics", "methods": {}}
    found = demo.Demo(summary, tmp_path / "report.html", "a note")
    monkeypatch.setattr(demo, "run_demo", lambda bench, out, *, quick: found)
    cli_demo.demo(out=tmp_path, quick=True, bench=BENCH, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == {**summary, "report": str(tmp_path / "report.html"), "note": "a note"}

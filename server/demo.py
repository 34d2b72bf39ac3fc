"""The demo: a service of its own on the simulated bench, four jobs over REST, table and report."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.client import Client
from lab.comparison.plan import Comparison, Outcome, fit_name, plan_comparison, run_name
from lab.comparison.service import ServiceRuns
from lab.comparison.summary import summarise
from lab.datasets import Dataset, load_or_fallback
from lab.errors import ConfigError, LabError
from lab.report.report import write_report
from lab.rigs import gap, is_simulated
from lab.systems.optics import OpticsSystem
from server.run_bars import RunBars

_SYSTEM = "optics"
_METHODS = ("pat-refit", "in-silico")
_SEEDS = 2
_START_S = 60.0
_STOP_S = 30.0
# The digits are seven times as many as the vowels: fewer epochs, about as many hardware rows.
_DIGITS_EPOCHS = 9


@dataclass(frozen=True)
class Demo:
    """What the demo found: the comparison's JSON, where the report is, what was left out."""

    summary: Mapping[str, Any]
    report: Path
    note: str | None


def run_demo(bench: Path, out: Path, *, quick: bool = False) -> Demo:
    """Run the demo and write `out`/report.html; the service is stopped in any case.

    quick: one epoch of a small network on a rough twin, to see that everything works.

    Raises ConfigError for a bench that is not simulated, LabError where the service fails.
    """
    config = load_bench(bench)
    if not is_simulated(config):
        raise ConfigError(f"{bench}: the demo runs on simulated instruments only")
    dataset, note = load_or_fallback()
    if note is not None:
        print(f"note: {note}", file=sys.stderr, flush=True)
    plan = _plan(dataset, quick)
    start = time.time()
    outcome = _train(plan, bench, gap(config, _SYSTEM))
    summary = summarise(plan, outcome)
    report = out / "report.html"
    write_report(
        report,
        summary,
        outcome.results,
        facts=_facts(config, dataset, start),
        wavelengths_nm=_wavelengths_nm(config),
    )
    return Demo(summary, report, note)


def _plan(dataset: Dataset, quick: bool) -> Comparison:
    options: dict[str, Any] = {
        "system": _SYSTEM,
        "task": dataset.name,
        "methods": _METHODS,
        "seeds": _SEEDS,
    }
    if dataset.name != "vowels":
        options["epochs"] = _DIGITS_EPOCHS
    if quick:
        options |= {"epochs": 1, "layers": 2, "twin_rows": (40,), "twin_kind": "neural"}
    return plan_comparison(**options)


def _train(plan: Comparison, bench: Path, bench_gap: float | None) -> Outcome:
    with open_service(bench) as url, RunBars() as bars:
        bars.add(fit_name(plan.twin_rows[0]))
        for config in plan.configs(plan.twin_fields(plan.twin_rows[0])):
            bars.add(run_name(config))
        runs = ServiceRuns(plan, lambda: Client(url, name="demo"), bars.show, bench_gap)
        return runs(plan.twin_rows[0])


@contextmanager
def open_service(bench: Path) -> Iterator[str]:
    """Start a service on a free loopback port, with a data folder that goes with it; yield its URL.

    It is stopped, with its instruments in their safe state, however the block ends. Raises
    LabError with the service's own words if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="pnnlab-demo-") as folder:
        log = Path(folder) / "service.log"
        command = [sys.executable, "-m", "server", "serve", "--port", "0"]
        command += ["--bench", str(bench), "--data", str(Path(folder) / "data")]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # two jobs share two cores: threads of the arithmetic's own would wait spinning
                env={"OMP_NUM_THREADS": "1", **os.environ},
                # Ctrl-C is for the demo alone: it cancels the jobs before it stops the service
                start_new_session=True,
            ) as process,
        ):
            try:
                yield _ready_url(process, log)
            finally:
                _stop(process)


def _ready_url(process: "subprocess.Popen[str]", log: Path) -> str:
    """Wait for the line that names the service's address."""
    if process.stdout is None:
        raise LabError("the service was started without a pipe to read its address from")
    timer = threading.Timer(_START_S, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            if found := re.search(r"https?://[^\s\"]+", line):
                return found[0]
    finally:
        timer.cancel()
    reason = " ".join(log.read_text(errors="replace").split())[-500:]
    raise LabError(f"the service did not start within {_START_S:.0f} s: {reason}")


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise LabError(f"the service did not stop within {_STOP_S:.0f} s and was killed") from None


def _wavelengths_nm(config: BenchConfig) -> list[float] | None:
    """Return the wavelengths of the outputs; the instruments are simulated and cost nothing."""
    with open_bench(config, start=False) as bench:
        system = bench.system(_SYSTEM)
        if isinstance(system, OpticsSystem):
            return [1e9 * float(wavelength) for wavelength in system.wavelengths_m]
    return None


def _facts(config: BenchConfig, dataset: Dataset, start: float) -> dict[str, str]:
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in ("pnnlab", "torch")]
    return {
        "Data": f"{dataset.name}, {len(dataset.labels)} samples: {dataset.source}",
        "Bench": f"{config.name}, all instruments simulated",
        "How": "four jobs submitted over REST, two at a time on one bench",
        "Started": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(start)),
        "Took": f"{time.time() - start:.0f} s on {os.cpu_count()} processors",
        "Versions": ", ".join(versions),
    }

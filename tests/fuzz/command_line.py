"""Rows that the command line asks for: `pnnlab check` and `pnnlab compare`, in this process."""

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from typer.testing import CliRunner

import lab.comparison.local
from lab.systems.base import PhysicalSystem
from limited_benches import FILES, INSTRUMENTS, OF_ROWS, PLAIN, RANGES, ROOT, verdicts
from server.cli import app
from tally import Fuzz
from twins.fitting import FitSettings

CHECKS = 0.2  # of the rows
ROWS_COMPARED = 5000  # about as many as one comparison measures: for fewer left it is not begun
COMPARED = ("circuit", "plate")
WIDER = {
    "optics": ("attenuation = [-1.0, 60.0]", "phase = { high = 7.0 }", "attenuation = { rms = 1 }"),
    "circuit": ("drive = { peak = 10.1 }", "drive = { slew = 21.0 }", "drive = [nan, 1.0]"),
    "plate": ("drive = [-1.0, inf]", "drive = { duty = 0.0 }", "drive = { rms = 1.5 }"),
}


def command_line(fuzz: Fuzz) -> None:
    """Check benches with all kinds of limits, and compare methods on two."""
    with tempfile.TemporaryDirectory() as folder, _judged(fuzz):
        file = Path(folder) / "bench.toml"
        checks = 0
        while checks < 6 or fuzz.goes_on(CHECKS) or 0 < fuzz.left < ROWS_COMPARED:
            _check(fuzz, file)
            fuzz.settle()
            checks += 1
        while fuzz.goes_on():
            _compare(fuzz, file)
            fuzz.settle()


@contextmanager
def _judged(fuzz: Fuzz) -> Iterator[None]:
    """Judge the rows of every system at its first check."""
    check = PhysicalSystem.check

    def judged(system: PhysicalSystem, x: Any, theta: Any) -> Any:
        with fuzz.checked(verdicts(system.description.name, x, theta, rows=fuzz.far.rows)):
            return check(system, x, theta)

    quick = functools.partial(lab.comparison.local.fit_system_twin, settings=FitSettings(steps=3))
    with (
        patch.object(PhysicalSystem, "check", judged),
        patch.object(lab.comparison.local, "fit_system_twin", quick),
    ):
        yield


def _check(fuzz: Fuzz, file: Path) -> None:
    """Let `pnnlab check` measure the middle of ranges that are drawn, or open limits too wide."""
    rng = fuzz.rng
    system = str(rng.choice(list(FILES)))
    ends = np.sort(rng.uniform(*RANGES[system], 2))
    if rng.random() < 0.3:
        limits = str(rng.choice(WIDER[system]))
        rows = fuzz.tally.rows
        refused = _invoke(file, system, limits, (ends[0], ends[1]), "check")
        if fuzz.tally.rows != rows or not refused:
            fuzz.tally.wrong.append(f"check: {limits} was not refused")
        return
    _invoke(file, system, _toml(OF_ROWS[system]), (ends[0], ends[1]), "check")


def _compare(fuzz: Fuzz, file: Path) -> None:
    rng = fuzz.rng
    system = str(rng.choice(COMPARED))
    fuzz.far.rows = bool(rng.random() < 0.3)
    limits = _toml((OF_ROWS if fuzz.far.rows else PLAIN)[system])
    arguments = (
        f"compare --system {system} --task digits --methods pat,spsa,pepg --controls none --seeds 1"
        " --twin-rows 20 --twin-kind filter --epochs 1 --train-images 20 --test-images 10"
        " --path wire --workers 1 --json"
    )
    rows = fuzz.tally.rows
    failed = _invoke(file, system, limits, RANGES[system], *arguments.split())
    if fuzz.tally.rows == rows:
        raise RuntimeError(f"pnnlab compare measures nothing: {failed}")
    fuzz.far.rows = True


def _invoke(
    file: Path, system: str, limits: str, ends: tuple[float, float], *arguments: str
) -> str:
    """Run a command on a bench with these limits; return what it says if it fails."""
    text = (ROOT / FILES[system]).read_text()
    both = f"[{ends[0]}, {ends[1]}]"
    file.write_text(
        f"{text}\n[instruments.{INSTRUMENTS[system]}.limits]\n{limits}\n"
        f"[systems.{system}.limits]\nx = {both}\ntheta = {both}\n"
    )
    result = CliRunner().invoke(app, [*arguments, "--bench", str(file)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output if result.exit_code else ""


def _toml(limits: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {_value(value)}" for key, value in limits.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {v}' for k, v in value.items())} }}"
    return str(list(value))

"""Calibrate a system: dark, full scale, noise, response, lag, drift, and what changed since then.

The same rows are measured round by round (`lab.calibration_rows`), so that what drifts is told from
what scatters. The reference rows' mean is kept: the next calibration compares with it. Plain
blocking code.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drivers.spec import Array, ArraySpec
from lab.apparatus import Apparatus
from lab.calibration_rows import REFERENCES, REPEATS, SHARES, CalibrationRows
from lab.changes import Change, Scatter, change, scatter
from lab.errors import Stopped
from lab.jobs.configs import ROUND_ROWS, CalibrateConfig
from lab.measure import DeviceMeasure
from lab.systems.base import never

_STREAM = 1 << 44  # noise streams of calibrations, apart from those of training runs and fits
_BRIGHT = slice(REPEATS + len(SHARES), 2 * REPEATS + len(SHARES))
_LEVELS = slice(REPEATS, REPEATS + len(SHARES))


@dataclass(frozen=True)
class Since:
    """What has changed since the calibration `name` of job `job`, whose digest is given."""

    job: str
    name: str
    digest: str
    change: Change


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration found; values of y and its scatter in `unit`, levels rms over the outputs.

    rows, rounds: measured. share: of the system's reference row that its limits allow, the bright
    row. dark_level, dark_offset (mean over the outputs), dark_noise: of the dark row.
    bright_level, noise (standard deviation of one bright row, `noise_by_output` of each output):
    snr is their ratio, None without noise. full_scale: the end of the range of y; full_scale_use:
    the greatest output of any row over it, margin: what is left; saturated: rows that reach it.
    response: rms change from the dark to each share of the bright row, exponent: of the power law
    through it, None where there is none. dark_lag, bright_lag: whether a row depends on the one
    before. drift: from the first half of the rounds to the second. since: the calibration before
    this one, None for the first and where that measured other rows. reference (rows, y_size): mean
    responses of the reference rows; reference_drives: sha256 of their drives; variance: the sum of
    the variances of one round's responses; digest: sha256 of all reference responses.
    next_row, next_time_s: where the noise stream and the simulated time go on.
    """

    system: str
    unit: str
    rows: int
    rounds: int
    share: float
    dark_level: float
    dark_offset: float
    dark_noise: float
    bright_level: float
    noise: float
    noise_by_output: list[float]
    snr: float | None
    full_scale: float
    full_scale_use: float
    margin: float
    saturated: int
    response: list[float]
    exponent: float | None
    dark_lag: Change
    bright_lag: Change
    drift: Change
    since: Since | None
    reference: list[list[float]]
    reference_drives: str
    variance: float
    digest: str
    seed: int
    next_row: int
    next_time_s: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def calibrate(
    config: CalibrateConfig,
    rows: CalibrationRows,
    apparatus: Apparatus,
    *,
    before: tuple[str, Mapping[str, Any]] | None = None,
    on_metric: Callable[[dict[str, Any]], None] | None = None,
    stop: Callable[[], bool] = never,
) -> CalibrationResult:
    """Measure `config.rounds` rounds of the rows and return what they show.

    before: the job and the result (`as_dict`, with its `name`) of the calibration before this one
    on the same system, which says, too, where the simulated device's time goes on. Raises Stopped
    when `stop` says so, asked between rounds, and whatever measuring raises.
    """
    began = time.perf_counter()
    device = _open(config, apparatus, None if before is None else before[1])
    spec = apparatus.description.y
    rounds = []
    for i in range(config.rounds):
        if stop():
            raise Stopped(f"calibration stopped in round {i + 1} of {config.rounds}")
        y = spec.to_physical(device(rows.x, rows.theta).numpy())
        rounds.append(y)
        if on_metric is not None:
            on_metric(_metric(i, config.rounds, y, device))
    measured = np.stack(rounds)
    found = _numbers(measured, spec) | _changes(measured, _drives(rows), before)
    return CalibrationResult(
        system=apparatus.description.name,
        rows=device.rows,
        rounds=config.rounds,
        share=rows.share,
        seed=config.seed,
        next_row=_next(device),
        next_time_s=device.time_s,
        seconds=time.perf_counter() - began,
        **found,
    )


def rows_to_calibrate(config: CalibrateConfig) -> int:
    """Return how many rows are measured."""
    return config.rounds * ROUND_ROWS


def _open(
    config: CalibrateConfig, apparatus: Apparatus, before: Mapping[str, Any] | None
) -> DeviceMeasure:
    """Open the device where the last calibration left it, and `wait_s` later."""
    first = 0
    if before is not None and before["seed"] == config.seed:
        first = before["next_row"]
    device = apparatus.open_device(_STREAM + config.seed, first)
    if before is not None:
        device.wait(max(0.0, before["next_time_s"] - device.time_s))
    device.wait(config.wait_s)
    return device


def _next(device: DeviceMeasure) -> int:
    row: int = device.state_dict()["next"]
    return row


def _metric(i: int, of: int, y: Array, device: DeviceMeasure) -> dict[str, Any]:
    """Return what a round shows at once."""
    return {
        "kind": "round",
        "round": i + 1,
        "of": of,
        "rows": device.rows,
        "dark": _rms(y[:REPEATS].mean(axis=0)),
        "bright": _rms(y[_BRIGHT].mean(axis=0)),
    }


def _numbers(y: Array, spec: ArraySpec) -> dict[str, Any]:
    """Return levels, noise and response of rounds y (rounds, 16, outputs)."""
    dark, bright = y[:, :REPEATS], y[:, _BRIGHT]
    dark_mean, bright_mean = dark.mean(axis=(0, 1)), bright.mean(axis=(0, 1))
    by_output = bright.reshape(-1, y.shape[2]).std(axis=0, ddof=1)
    noise, level = _rms(by_output), _rms(bright_mean)
    full_scale = max(abs(spec.low), abs(spec.high))
    use = float(np.abs(y).max()) / full_scale
    at_end = (y >= spec.high) | ((y <= spec.low) if spec.low < 0 else False)
    response = [_rms(part - dark_mean) for part in (*y[:, _LEVELS].mean(axis=0), bright_mean)]
    return {
        "unit": spec.unit,
        "dark_level": _rms(dark_mean),
        "dark_offset": float(dark_mean.mean()),
        "dark_noise": _rms(dark.reshape(-1, y.shape[2]).std(axis=0, ddof=1)),
        "bright_level": level,
        "noise": noise,
        "noise_by_output": by_output.tolist(),
        "snr": level / noise if noise > 0 else None,
        "full_scale": full_scale,
        "full_scale_use": use,
        "margin": 1 - use,
        "saturated": int(at_end.any(axis=2).sum()),
        "response": response,
        "exponent": _exponent(response),
    }


def _changes(y: Array, drives: str, before: tuple[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return lag and drift of rounds y (rounds, 16, outputs), and what has changed since before."""
    references = y[:, -REFERENCES:].reshape(len(y), -1)
    halves = np.array_split(references, 2)
    spread = scatter(halves)
    mean = references.mean(axis=0)
    expected = spread.variance * sum(1 / len(half) for half in halves)
    return {
        "dark_lag": _lag(y[1:, 0], y[1:, REPEATS - 1]),  # before the first: who knows what
        "bright_lag": _lag(y[:, _BRIGHT.start], y[:, _BRIGHT.stop - 1]),
        "drift": change(halves[0].mean(axis=0), halves[1].mean(axis=0), spread, expected),
        "since": _since(mean, spread, len(y), drives, before),
        "reference": mean.reshape(REFERENCES, -1).tolist(),
        "reference_drives": drives,
        "variance": spread.variance,
        "digest": _digest(references),
    }


def _lag(first: Array, again: Array) -> Change:
    """Compare a row after another one with the same row after itself, (rounds, outputs) each."""
    spread = scatter([first - again])
    mean = again.mean(axis=0)
    return change(mean, first.mean(axis=0), spread, spread.variance / len(first))


def _since(
    mean: Array,
    spread: Scatter,
    rounds: int,
    drives: str,
    before: tuple[str, Mapping[str, Any]] | None,
) -> Since | None:
    if before is None or before[1]["reference_drives"] != drives:
        return None
    job, old = before
    expected = spread.variance / rounds + old["variance"] / old["rounds"]
    then = np.asarray(old["reference"]).ravel()
    return Since(job, old["name"], old["digest"], change(then, mean, spread, expected))


def _exponent(response: list[float]) -> float | None:
    """Return the slope of log response over log share; None where some do not respond."""
    if min(response) <= 0:
        return None
    shares = np.log([*SHARES, 1.0])
    slope = float(np.polyfit(shares, np.log(response), 1)[0])
    return slope if math.isfinite(slope) else None


def _drives(rows: CalibrationRows) -> str:
    return _digest(*(part[-REFERENCES:].numpy() for part in (rows.x, rows.theta)))


def _digest(*arrays: Array) -> str:
    """Return the sha256 of numbers, as little-endian float64."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(array.astype("<f8").tobytes())
    return whole.hexdigest()


def _rms(y: Array) -> float:
    return float(np.sqrt(np.square(y).mean()))

"""Simulated benches with narrower limits, and what their far ends count.

The bounds of the far ends and the verdict on a row are written here a second time, not taken from
the drivers: two mistakes would have to agree.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import drivers.transport
import lab.bench
from drivers.mock.firmware.audio import SimulatedAudio
from drivers.mock.firmware.bounds import Bounds
from drivers.mock.firmware.mcc import MccFirmware
from drivers.mock.firmware.waveshaper import WaveShaperFirmware
from drivers.mock.rig import Rig
from lab.bench_config import BenchConfig, load_bench

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"circuit": 0.45, "plate": 0.95, "optics": 1.0}  # of an entry, up to and with this system
FILES = {"optics": "bench.toml", "circuit": "bench-circuit.toml", "plate": "bench-plate.toml"}
RANGES = {"optics": (-0.5, 0.89), "circuit": (-0.4, 0.4), "plate": (-0.3, 0.3)}  # of x and theta
FLOOR_DB, TRANSMISSION = 1.0, 0.15
PEAK_V, SLEW_V = 8.0, 6.0
PEAK, RMS, SLEW = 0.6, 0.12, 0.9
_SLACK = 3e-4  # relative: of a row whose figure is so close to its limit nothing is expected

PLAIN: dict[str, dict[str, Any]] = {
    "optics": {"attenuation": {"low": FLOOR_DB}, "phase": (0.0, 3.1416)},
    "circuit": {"drive": (-PEAK_V, PEAK_V)},
    "plate": {"drive": (-PEAK, PEAK)},
}
OF_ROWS: dict[str, dict[str, Any]] = {
    "optics": {**PLAIN["optics"], "attenuation": {"low": FLOOR_DB, "transmission": TRANSMISSION}},
    "circuit": {"drive": {"peak": PEAK_V, "slew": SLEW_V}},
    "plate": {"drive": {"peak": PEAK, "rms": RMS, "slew": SLEW}},
}
INSTRUMENTS = {"optics": "shaper", "circuit": "daq", "plate": "sound"}


def limited_bench(system: str, *, rows: bool) -> BenchConfig:
    """Return a bench whose ranges are narrower than the hardware's; rows: figures of a row too."""
    data = load_bench(ROOT / FILES[system]).model_dump()
    data["instruments"][INSTRUMENTS[system]]["limits"] = (OF_ROWS if rows else PLAIN)[system]
    data["systems"][system]["limits"] = {"x": RANGES[system], "theta": RANGES[system]}
    return BenchConfig.model_validate(data)


class FarEnds:
    """Every simulated instrument that is opened while this watches, with the bench's bounds.

    rows: also those of OF_ROWS; may be changed until the next bench is opened.
    """

    def __init__(self) -> None:
        self.rows = True
        self._firmware: list[Any] = []

    @property
    def out_of_limits(self) -> int:
        """Get how much has arrived that should not have."""
        return sum(f.out_of_limits for f in self._firmware)

    @property
    def uses(self) -> int:
        """Get how many waveforms and profiles have arrived."""
        return sum(_uses(f) for f in self._firmware)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch every bench that is opened meanwhile."""
        with patch.object(lab.bench, "open_rigs", self._open_rigs):
            yield

    def forget(self) -> None:
        """Watch what is opened from now on, only."""
        self._firmware.clear()

    def add(self, firmware: Any, **bounds: Any) -> None:
        """Watch one more instrument, with bounds of its own."""
        for name, value in bounds.items():
            setattr(firmware, name, value)
        self._firmware.append(firmware)

    def _open_rigs(self, *arguments: Any) -> Mapping[str, Rig]:
        rigs = drivers.transport.open_rigs(*arguments)
        for rig in rigs.values():
            for firmware in rig.instruments.values():
                if isinstance(firmware, WaveShaperFirmware | MccFirmware | SimulatedAudio):
                    self.add(firmware, **self._bounds(firmware))
        return rigs

    def _bounds(self, firmware: object) -> dict[str, Any]:
        if isinstance(firmware, WaveShaperFirmware):
            most = TRANSMISSION if self.rows else 1.0
            attenuation_db = Bounds(FLOOR_DB, 60.0)
            phase_rad = Bounds(0.0, 3.1416)
            return dict(attenuation_db=attenuation_db, phase_rad=phase_rad, transmission=most)
        if isinstance(firmware, MccFirmware):
            of_rows = {"slew": SLEW_V} if self.rows else {}
            return {"bounds": Bounds(-PEAK_V, PEAK_V, **of_rows)}
        of_rows = {"rms": RMS, "slew": SLEW} if self.rows else {}
        return {"bounds": Bounds(-PEAK, PEAK, **of_rows)}


def _uses(firmware: Any) -> int:
    for name in ("waveforms", "exchanges", "profiles_loaded", "tables", "patterns"):
        if hasattr(firmware, name):
            return int(getattr(firmware, name))
    raise TypeError(f"{firmware}: counts nothing")


Verdict = np.ndarray[Any, np.dtype[np.int8]]
"""Of each row: 1 it has to be refused, 0 it has to be sent, -1 too close to a limit to say."""


def verdicts(system: str, x: Any, theta: Any, *, rows: bool) -> Verdict:
    """Judge rows of x and theta (rows, ...), physical units."""
    low, high = RANGES[system]
    both = np.concatenate([x, theta], axis=1).astype(np.float64)
    outside = ~((both >= low) & (both <= high)).all(axis=1)
    if not rows:
        return outside.astype(np.int8)
    with np.errstate(invalid="ignore", over="ignore"):
        if system == "optics":
            power = np.where(np.abs(both) < 0.001, 1e-6, both**2).mean(axis=1)
            return _joined(outside, power, TRANSMISSION)
        drive = (10.0 if system == "circuit" else 1.0) * (x + theta)
    return np.where(outside, 1, series_verdicts(system, drive)).astype(np.int8)


def series_verdicts(system: str, drive: Any, *, driven: float = np.inf) -> Verdict:
    """Judge rows (rows, samples) for the drivers; driven: samples that may not be 0."""
    peak, slew, rms = (PEAK_V, SLEW_V, np.inf) if system == "circuit" else (PEAK, SLEW, RMS)
    with np.errstate(invalid="ignore", over="ignore"):
        outside = ~(np.abs(drive) <= peak).all(axis=1)
        outside |= (drive != 0).sum(axis=1) > driven
        ended = np.pad(drive, ((0, 0), (1, 1)))
        verdict = _joined(outside, np.abs(np.diff(ended, axis=1)).max(axis=1), slew)
        loud = _joined(outside, np.sqrt((drive**2).mean(axis=1)), rms)
    return np.where((verdict == 1) | (loud == 1), 1, np.minimum(verdict, loud)).astype(np.int8)


def _joined(outside: Any, figure: Any, most: float) -> Verdict:
    close = np.abs(figure / most - 1) < _SLACK
    return np.where(outside, 1, np.where(close, -1, ~(figure <= most))).astype(np.int8)

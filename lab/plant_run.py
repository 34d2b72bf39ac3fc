"""Rows of a simulated system without driver and wire: the same numbers, many times as fast.

run = plant_run(bench, "optics")
device = open_apparatus(bench, "optics", run).open_device(0, 0)

Everything that changes a number is kept, in the same order: limits, encoding, the profile's four
decimals, the shaper's blocking, DAC, drift, noise, ADC, the trace's single precision. What cannot
change one is left out: requests, polling, error queues, armed faults.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from drivers.row_key import RowKey
from drivers.shapers.waveshaper import WaveShaperA
from drivers.shapers.wsp import as_written
from drivers.spec import Array, ArraySpec
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from lab.bench import Bench
from lab.errors import PassCancelled
from lab.systems.base import PhysicalSystem, never
from lab.systems.optics import (
    LINES_PER_PIXEL,
    OpticsSystem,
    encode_pixels,
    pixel_fields,
    used_points,
)

_ROWS_AT_ONCE = 64  # what the arithmetic holds of more rows does not fit into the cache


class ProfilesToTraces(Protocol):
    """The rig beyond the wire; see `drivers.mock.physics.optical_rows`."""

    def measure(
        self,
        frequencies_thz: Array,
        attenuation_db: Array,
        phase_rad: Array,
        keys: Sequence[RowKey],
    ) -> Array:
        """Return traces (rows, points), W, of profiles (rows, pixels), dB and rad."""
        ...


class PlantRun:
    """Execute rows of simulated optics (a `lab.measure.Run`), in the calling thread."""

    def __init__(self, system: OpticsSystem, shaper: WaveShaperA, rig: ProfilesToTraces) -> None:
        """Measure what `system`, with its driver `shaper`, would measure on `rig`."""
        self._system = system
        self._shaper = shaper
        self._rig = rig
        self._frequencies_thz = shaper.frequencies_thz
        self._turn = threading.Lock()
        self._hardware_s = 0.0

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        """Return y (rows, 50), W, of x and theta (rows, 50), relative field; see `Run`.

        Raises LimitError for values out of range before any row is measured, ValueError for
        another number of keys or a bench that was not started.
        """
        name = self._system.description.name
        x, theta = self._system.check(x, theta)
        if len(keys) != len(x):
            raise ValueError(f"{name}: {len(x)} rows but {len(keys)} row keys")
        y = np.empty((len(x), *self._system.description.y.shape))
        with self._turn:
            begin = time.perf_counter()
            try:
                for first in range(0, len(x), _ROWS_AT_ONCE):
                    if stopped():
                        raise PassCancelled(f"{name}: stopped after {first} of {len(x)} rows")
                    rows = slice(first, first + _ROWS_AT_ONCE)
                    y[rows] = self._measure(x[rows], theta[rows], keys[rows])
            finally:
                self._hardware_s += time.perf_counter() - begin
        return y

    def cancel(self) -> None:
        """Do nothing: `stopped` is asked every 64 rows, a few milliseconds."""

    def hardware_s(self) -> float:
        """Return the time spent on rows so far, s."""
        return self._hardware_s

    def _measure(self, x: Array, theta: Array, keys: Sequence[RowKey]) -> Array:
        attenuation_db, phase_rad = encode_pixels(pixel_fields(x, theta))
        self._refuse(self._shaper.attenuation, attenuation_db)
        self._refuse(self._shaper.phase, phase_rad)
        profiles = as_written(attenuation_db), as_written(phase_rad)
        return used_points(self._rig.measure(self._frequencies_thz, *profiles, keys))

    def _refuse(self, spec: ArraySpec, values: Array) -> None:
        """Let the driver's own check speak where a pixel (rows, pixels) is out of its limits."""
        inside = values.min() >= spec.low and values.max() <= spec.high
        if not inside or spec.limits_rows:
            spec.check(np.repeat(values, LINES_PER_PIXEL, axis=1), instrument=self._shaper.name)


def plant_run(bench: Bench, name: str) -> PlantRun:
    """Return what executes rows of a simulated system without driver and wire.

    Raises UnknownName; ValueError for a real bench, a rig that honours times, or a system other
    than the optics on their own drivers.
    """
    system = bench.system(name)
    rig = bench.rig(name)
    if rig is None:
        raise ValueError(f"{name}: only a simulated bench has rows without driver and wire")
    _refuse_waiting(bench, name)
    # a subclass or another driver may encode otherwise
    if rig.optical_rows is not None and type(system) is OpticsSystem:
        shaper, spectrometer = system.shaper, system.spectrometer
        if type(shaper) is WaveShaperA and type(spectrometer) is YokogawaAQ6370:
            return PlantRun(system, shaper, rig.optical_rows)
    raise ValueError(
        f"{name}: rows without driver and wire exist for the optics on WaveShaperA and "
        f"YokogawaAQ6370 only, this is {_kind(system)}"
    )


def _refuse_waiting(bench: Bench, name: str) -> None:
    parts = bench.config.systems[name].instruments.values()
    for rig in {bench.config.instruments[part].rig for part in parts} - {None}:
        if bench.config.rigs[str(rig)].honour_times:
            raise ValueError(f"{name}: rigs.{rig}.honour_times asks for rows that take their time")


def _kind(system: PhysicalSystem) -> str:
    drivers = ", ".join(type(i).__name__ for i in system.instruments)
    return f"{type(system).__name__} on {drivers}"

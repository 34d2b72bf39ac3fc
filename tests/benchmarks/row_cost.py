"""Measure the time of one row through driver, wire and firmware, with and without the physics.

    python tests/benchmarks/row_cost.py [--json] [--rows N] [--rounds N]

A row is: format a 1000-line profile, POST it, parse it at the far end, sweep, read 101 points.
The plant's own arithmetic is left out by a plant that answers a constant. Each figure is a median
over rows, in ms, in the quickest of several interleaved rounds: what else the machine does only
adds to it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from drivers.mock.physics.optics import OpticalPlant
from drivers.mock.rig import Rig, ShapedLight, optical_rig
from drivers.row_key import RowKey
from drivers.shapers.waveshaper import WaveShaperA
from drivers.shapers.wsp import ProfileFormat, ProfileReader
from drivers.spec import Array
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from drivers.transport import open_http, open_visa

PIXELS = 100
TARGET_MS = {"without_plant_ms": 1.2, "with_plant_ms": 1.5}


class ConstantPlant:
    """A plant without physics."""

    def __init__(self, points: int = 101) -> None:
        self._power = np.linspace(0.0, 1e-6, points)

    def announce(self, key: RowKey) -> None:
        """Ignore the key."""

    def set_transmission(self, frequencies_thz: Array, transmission: Array) -> None:
        """Ignore the light."""

    def spectrum(self, wavelengths_m: Array) -> Array:
        """Return the same spectrum every time."""
        return self._power


class Bench:
    """The two drivers in front of one simulated rig."""

    def __init__(self, plant: ShapedLight, stack: ExitStack) -> None:
        self.rig = optical_rig(plant)
        rigs: dict[str, Rig] = {"optics": self.rig}
        client = open_http("mock://optics/shaper", rigs, timeout_s=5)
        self.shaper = stack.enter_context(WaveShaperA(client, settling_time_s=0))
        self.spectrometer = stack.enter_context(
            YokogawaAQ6370(
                open_visa("mock://optics/spectrometer", rigs, timeout_s=5),
                start_nm=773.365,
                stop_nm=776.635,
                points=101,
                full_scale_w=1.6e-6,
            )
        )
        self.shaper.start()
        self.spectrometer.start()

    def row(self, index: int, attenuation_db: Array, phase_rad: Array) -> Array:
        """Measure one row."""
        self.rig.announce_rows([RowKey(0, index, 0.75 * index)])
        self.shaper.load(attenuation_db, phase_rad)
        return self.spectrometer.measure()


def profiles(rows: int) -> list[tuple[Array, Array]]:
    """Return random profiles as the optics encode them: (1000,) dB and rad each."""
    rng = np.random.default_rng(0)
    field = np.repeat(rng.uniform(-0.5, 1.0, (rows, PIXELS)), 10, axis=1)
    attenuation = np.minimum(-20 * np.log10(np.abs(field)), 60.0)
    return list(zip(np.maximum(attenuation, 0.0), np.where(field < 0, np.pi, 0.0), strict=True))


def median_ms(calls: Iterable[Callable[[], object]]) -> float:
    """Return the median duration of the calls, ms."""
    times = []
    for call in calls:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def row_ms(plant: ShapedLight, rows: list[tuple[Array, Array]]) -> float:
    """Return the median time of one row in front of `plant`, ms."""
    with ExitStack() as stack:
        bench = Bench(plant, stack)
        return median_ms(lambda i=i, r=r: bench.row(i, *r) for i, r in enumerate(rows))


def breakdown(rows: list[tuple[Array, Array]]) -> dict[str, float]:
    """Return the parts of a row, ms each, without physics."""
    with ExitStack() as stack:
        bench = Bench(ConstantPlant(), stack)
        separators = rb"\t", rb"\n"
        layout = ProfileFormat(bench.shaper.frequencies_thz, 1, separators)
        reader = ProfileReader(separators)
        texts = [layout.format(*r) for r in rows]
        return {
            "format_ms": median_ms(lambda r=r: layout.format(*r) for r in rows),
            "http_round_trip_ms": median_ms(bench.shaper.identify for _ in rows),
            "parse_ms": median_ms(lambda t=t: reader.read(t) for t in texts),
            "shaper_ms": median_ms(lambda r=r: bench.shaper.load(*r) for r in rows),
            "spectrometer_ms": median_ms(bench.spectrometer.measure for _ in rows),
        }


def one_round(rows: list[tuple[Array, Array]]) -> dict[str, float]:
    """Return every figure once, ms."""
    return {
        "without_plant_ms": row_ms(ConstantPlant(), rows),
        "with_plant_ms": row_ms(OpticalPlant(), rows),
        **breakdown(rows),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Measure the time of one row.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=200, help="rows in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the quickest of")
    arguments = parser.parse_args()
    rows = profiles(arguments.rows)
    row_ms(ConstantPlant(), rows[:50])  # warm up
    rounds = [one_round(rows) for _ in range(arguments.rounds)]
    figures = {key: min(r[key] for r in rounds) for key in rounds[0]}
    if arguments.json:
        print(json.dumps({key: round(value, 4) for key, value in figures.items()}))
        return
    for key, value in figures.items():
        bound = f"  (at most {TARGET_MS[key]})" if key in TARGET_MS else ""
        print(f"{key:20} {value:7.3f}{bound}")


if __name__ == "__main__":
    main()

"""CUSUM and sentinels: quiet while nothing changes, and soon aware of what does."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from drivers.mock.physics.optics import OpticalPlant
from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.bench import open_bench
from lab.cusum import Cusum
from lab.measure import DeviceMeasure
from lab.pat import Measure
from lab.rigs import with_rigs
from lab.sentinels import DISTANCE, TWIN_ERROR, DriftEvent, Sentinels, reference_rows
from lab.stages import brightness_free
from lab.systems.base import SystemDescription
from lab.systems.optics import pixel_fields
from small_networks import BENCH
from twins.optics import OpticsTwin

KNOWN = [-math.sqrt(0.5), math.sqrt(0.5)]  # reference values of mean 0 and spread 1
LOOK_EVERY_S = 300.0
WAVELENGTHS_M = np.linspace(773.365e-9, 776.635e-9, 101)[1::2]


def channels(x_size: int, theta_size: int) -> SystemDescription:
    x, theta, y = (
        ArraySpec(name, "1", (size,), 0.0, 1.0)
        for name, size in (("x", x_size), ("theta", theta_size), ("y", x_size))
    )
    return SystemDescription("made up", x, theta, y, 0.0)


def run_length(chart: Cusum, values: np.random.Generator, most: int) -> int:
    """Return after how many normal values the chart fires, at most `most` + 1."""
    return next((n for n in range(1, most + 1) if chart.add(values.normal())), most + 1)


def in_control_run_length(slack: float, limit: float) -> float:
    """Return ARL0: the mean number of values to a false alarm of a two-sided CUSUM.

    For independent normal values of known mean and spread; slack above 0. Siegmund's approximation
    (D. Siegmund, Sequential Analysis, 1985): with b = limit + 1.166, half of
    (exp(2 slack b) - 2 slack b - 1) / (2 slack^2).
    """
    e = 2 * slack * (limit + 1.166)
    return (math.exp(e) - e - 1) / (4 * slack**2)


def test_the_false_alarms_of_the_usual_chart_are_as_rare_as_it_says() -> None:
    assert Cusum.__doc__ is not None
    assert f"{in_control_run_length(1.0, 10.0):.1e}".replace("e+0", "e") in Cusum.__doc__


@pytest.mark.parametrize(("slack", "limit"), [(0.5, 4.0), (0.5, 5.0), (1.0, 2.5)])
def test_false_alarms_come_as_often_as_theory_says(slack: float, limit: float) -> None:
    values = np.random.default_rng(0)
    lengths = [
        run_length(Cusum(KNOWN, slack=slack, limit=limit), values, 10_000) for _ in range(400)
    ]
    # run lengths are nearly exponential: the mean of 400 scatters by 5 %
    assert np.mean(lengths) == pytest.approx(in_control_run_length(slack, limit), rel=0.15)


def test_few_reference_values_make_few_false_alarms() -> None:
    values = np.random.default_rng(1)
    charts = [Cusum(values.normal(size=20).tolist()) for _ in range(600)]
    alarms = sum(run_length(chart, values, 200) <= 200 for chart in charts)
    assert alarms <= 15  # 1 % of 600 are 6; the standard deviation is 2.5


@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_a_shift_is_found_in_either_direction(shift: float) -> None:
    values = np.random.default_rng(2)
    chart = Cusum(KNOWN)
    fired = [chart.add(shift + values.normal()) for _ in range(12)]
    assert fired[-1]
    assert not any(fired[:2])


@pytest.mark.parametrize("reference", [[1.0], [1.0, 1.0], [1.0, math.nan]])
def test_a_reference_without_a_spread_is_refused(reference: list[float]) -> None:
    with pytest.raises(ValueError, match="reference values"):
        Cusum(reference)


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Cusum(KNOWN).add(math.nan)


class StandingBench:
    """The default bench's plant without a wire and without time: its noise, and no drift."""

    def __init__(self, stream: int) -> None:
        self.plant, self.stream, self.rows = OpticalPlant(), stream, 0

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        y = [self._row(field) for field in pixel_fields(-0.5 + 1.5 * x, -0.5 + 1.5 * theta)]
        return torch.tensor(np.array(y) / 1.6e-6, dtype=torch.float32)

    def _row(self, field: Array) -> Array:
        self.rows += 1
        return self.plant.measure(field, RowKey(self.stream, self.rows, 0.0), WAVELENGTHS_M)


def sentinels(
    measure: Measure,
    twin: torch.nn.Module,
    clock: Callable[[], float] = float,
    read: Callable[[Tensor], Tensor] = brightness_free,
) -> Sentinels:
    return Sentinels(
        measure, twin, reference_rows(channels(50, 50), 6, seed=0), clock=clock, read=read
    )


@pytest.mark.parametrize("read", [brightness_free, torch.nn.Identity()])
@pytest.mark.parametrize("stream", [0, 1])
def test_noise_alone_raises_no_alarm(stream: int, read: Callable[[Tensor], Tensor]) -> None:
    watch = sentinels(StandingBench(stream), OpticsTwin(), read=read)
    watch.arm()
    assert [watch.look() for _ in range(200)] == [None] * 200
    assert watch.rows == 6 * (1 + 20 + 200)


def first_event(watch: Sentinels, device: DeviceMeasure, looks: int) -> DriftEvent | None:
    """Look every five minutes of simulated time until something is seen."""
    for _ in range(looks):
        device.wait(LOOK_EVERY_S)
        event = watch.look()
        if event is not None:
            return event
    return None


def test_a_drifting_bench_is_found_out_and_rearming_starts_anew() -> None:
    with open_bench(with_rigs(BENCH, drift_per_hour=0.05)) as bench:
        device = bench.measure("optics")
        watch = sentinels(device, bench.new_twin("optics"), lambda: device.time_s)
        watch.arm()
        event = first_event(watch, device, 24)
        assert event is not None
        assert event.statistic in (TWIN_ERROR, DISTANCE)
        assert event.value > 10
        assert event.rows == watch.rows == 6 * (21 + event.looks)
        assert event.time_s == device.time_s
        assert watch.look() is not None  # it does not go away by itself
        watch.arm()
        assert watch.look() is None
        assert first_event(watch, device, 24) is not None


def test_a_twin_that_changes_is_seen_too() -> None:
    twin = OpticsTwin()
    watch = sentinels(StandingBench(0), twin)
    watch.arm()
    with torch.no_grad():
        twin.phase.add_(torch.linspace(-1, 1, 100).square())
    event = watch.look()
    assert event is not None
    assert event.statistic == TWIN_ERROR


def test_without_a_reference_there_is_no_look() -> None:
    def measure(x: Tensor, theta: Tensor) -> Tensor:
        return x

    watch = Sentinels(
        measure, torch.nn.Identity(), reference_rows(channels(4, 4), 2, seed=0), clock=float
    )
    with pytest.raises(RuntimeError, match="arm"):
        watch.look()


def test_task_rows_follow_the_random_ones() -> None:
    task = (torch.full((2, 4), 0.25), torch.full((2, 3), 0.75))
    x, theta = reference_rows(channels(4, 3), 5, seed=1, task=task)
    again, _ = reference_rows(channels(4, 3), 5, seed=1)
    assert torch.equal(x[:5], again)
    assert torch.equal(x[5:], task[0])
    assert torch.equal(theta[5:], task[1])

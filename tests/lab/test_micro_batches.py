"""Into how many micro-batches a step is split, by itself and in a training run."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.apparatus import Apparatus
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.micro_batches import AutoMicroBatches, StepCost, choose
from lab.pipeline import Pipeline
from lab.train_result import TrainResult
from lab.trainer import train
from lab.twins import FittedTwin
from small_networks import Line, optics, simple_network, squares
from twins.fitting import TwinError
from twins.optics import OpticsTwin

pytestmark = pytest.mark.usefixtures("no_parts_left")


@pytest.mark.parametrize(
    ("hardware_s", "per_call_s", "digital_s", "most", "expected"),
    [
        (0.100, 0.000, 0.050, 32, 16),  # nothing speaks against many
        (0.100, 0.000, 0.050, 6, 4),  # a part has at least one sample
        (0.100, 0.001, 0.050, 32, 4),  # 5 calls: 155, 135, 132.5, 146, 183 ms
        (0.100, 0.010, 0.050, 32, 1),  # 200, 225, ... ms
        (24.00, 0.000, 0.050, 32, 1),  # not worth it
        (0.100, 0.000, 0.000, 32, 1),
    ],
)
def test_the_number_of_parts_follows_from_the_costs(
    hardware_s: float, per_call_s: float, digital_s: float, most: int, expected: int
) -> None:
    assert choose(StepCost(hardware_s, 5, per_call_s, digital_s), most) == expected


class Clock:
    """A clock that stands still but for `advance`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class TimedDevice(Line):
    """A line that takes `row_s` a row and `call_s` a call on a clock, in unsplit steps only."""

    def __init__(self, clock: Clock, row_s: float, call_s: float = 0.0) -> None:
        super().__init__()
        self.clock, self.row_s, self.call_s = clock, row_s, call_s
        self.hardware_s = 0.0
        self.main = threading.current_thread()
        self.threads: list[threading.Thread] = []  # of the calls

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        self.threads.append(threading.current_thread())
        if threading.current_thread() is self.main:
            self.clock.advance(self.call_s + self.row_s * len(x))
            self.hardware_s += self.row_s * len(x)
        return super().forward(x, theta)


def automatic(
    row_s: float, call_s: float, digital_s: float, declared_s: float = 0.0
) -> tuple[int, TimedDevice]:
    """Return the number after two steps of 16 samples in 2 layers, and the device after a third."""
    clock = Clock()
    device = TimedDevice(clock, row_s, call_s)
    network = simple_network(device, 2)
    twin = Line()

    def loss(network: nn.Module, rows: Tensor) -> tuple[Tensor, int]:
        if threading.current_thread() is device.main:
            clock.advance(digital_s)
        return squares(network, rows)

    auto = AutoMicroBatches(lambda: device.hardware_s, declared_s, clock)
    with Pipeline(network, lambda share: (device, twin), auto) as pipeline:
        for _ in range(2):
            assert pipeline.micro_batches == 1
            pipeline.step(torch.rand(16), loss)
        device.threads.clear()
        pipeline.step(torch.rand(16), loss)
        return pipeline.micro_batches, device


def test_digital_work_is_hidden_behind_rows_that_are_waited_for() -> None:
    number, device = automatic(row_s=0.002, call_s=0.001, digital_s=0.04)
    assert number == 2  # the first of 2 and 4: 106, 88, 82 and 85 ms for 1, 2, 4 and 8 parts
    assert device.main not in device.threads
    assert len(device.threads) == 4  # calls: 2 parts in 2 layers


@pytest.mark.parametrize(
    ("call_s", "digital_s", "declared_s"),
    [(0.05, 0.04, 0.0), (0.0, 0.001, 0.0), (0.0, 0.04, 0.005)],
    ids=[
        "a call costs more than is hidden",
        "nothing to hide",
        "rows are computed here",
    ],
)
def test_steps_stay_whole(call_s: float, digital_s: float, declared_s: float) -> None:
    number, device = automatic(0.002, call_s, digital_s, declared_s)
    assert number == 1
    assert device.threads == [device.main] * 2


@pytest.mark.parametrize(
    ("times_ms", "stays"),
    [
        ({2: 90, 4: 80, 8: 75, 16: 74}, 16),
        ({2: 90, 4: 80, 8: 85}, 4),
        ({2: 90, 4: 95}, 2),
        ({2: 110}, 1),
    ],
)
def test_more_parts_are_tried_while_the_step_gets_quicker(
    times_ms: dict[int, float], stays: int
) -> None:
    clock = Clock()
    device = TimedDevice(clock, 0.002)
    auto = AutoMicroBatches(lambda: device.hardware_s, 0.0, clock)
    timed = auto.timed(device)
    for samples in (32, 8, 32):  # a smaller batch does not count
        with auto.timing(samples):
            timed(torch.rand(samples, 1), torch.rand(samples, 1))
            clock.advance(0.04)  # with the rows 104 ms
    for number, milliseconds in times_ms.items():
        for seconds in (0.2, milliseconds / 1000):  # the quicker one counts
            assert auto.number == number
            with auto.timing(32):  # its rows were known: they came at once, and tell nothing
                clock.advance(0.001)
            with auto.timing(32):  # of this one's the first: it was broken off
                device(torch.rand(1, 1), torch.rand(1, 1))
            assert auto.number == number
            with auto.timing(32):
                device(torch.rand(1, 1), torch.rand(1, 1))
                clock.advance(seconds)
    for seconds in (1.0, 0.001, 0.001):  # decided for good
        assert auto.number == stays
        with auto.timing(32):
            clock.advance(seconds)
    assert auto.number == stays


def test_a_step_that_was_broken_off_and_is_gone_on_with_tells_nothing() -> None:
    """Its first layer was measured before: the rest would be rows of a third of their time."""
    clock = Clock()
    device = TimedDevice(clock, 0.002)
    auto = AutoMicroBatches(lambda: device.hardware_s, 0.002, clock)
    known, timed = auto.timed(Line()), auto.timed(device)
    for first in (known, timed, timed):
        assert not auto.decided
        with auto.timing(32):
            first(torch.rand(32, 1), torch.rand(32, 1))
            timed(torch.rand(16, 1), torch.rand(16, 1))
            clock.advance(0.2)
    assert auto.number == 2


# --- in a training run


def blobs() -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = np.clip(0.2 + 0.3 * labels[:, None] + 0.05 * rng.standard_normal((30, 4)), 0, 1)
    return Dataset("blobs", features, labels, ("a", "b", "c"), None, "generated")


def trained(apparatus: Apparatus, **fields: object) -> TrainResult:
    small = {"epochs": 2, "batch": 8, "network": {"layers": 2}, "method": "pat"}
    config = TrainConfig.model_validate({**small, **fields})
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    fitted = FittedTwin(OpticsTwin(), "structured", "optics", 0, 0, 0, 0.0, error, None)
    return train(config, blobs(), fitted, apparatus)


def test_training_in_micro_batches_is_training() -> None:
    with optics(1.0) as apparatus:
        whole, parts = (trained(apparatus, micro_batches=n) for n in (1, 3))
    assert (whole.micro_batches, parts.micro_batches) == (1, 3)
    assert (whole.rows, whole.test_rows) == (parts.rows, parts.test_rows)
    for a, b in zip(whole.curve, parts.curve, strict=True):
        # single precision, enlarged over six steps of Adam; a DAC step more or less now and then
        assert a.loss == pytest.approx(b.loss, rel=1e-2)
        assert a.penalty == pytest.approx(b.penalty, rel=1e-2, abs=1e-4)
        assert a.rows == b.rows


def test_on_a_bench_that_is_only_simulated_steps_are_not_split() -> None:
    with optics(1.0) as apparatus:
        assert trained(apparatus).micro_batches == 1


def test_a_method_that_does_not_measure_is_not_split() -> None:
    with optics(1.0) as apparatus:
        assert trained(apparatus, micro_batches=4, method="in-silico-noise").micro_batches == 1


@pytest.mark.parametrize("number", [0, 65, 9, "some"])
def test_the_number_of_parts_is_checked(number: object) -> None:
    with pytest.raises(ValueError, match="micro_batches"):
        TrainConfig.model_validate({"micro_batches": number, "batch": 8})

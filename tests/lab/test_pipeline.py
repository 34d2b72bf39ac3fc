"""Training steps in micro-batches: the same result, the deepest first, and clean ends."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.config import Method, NetworkConfig, SchedulerConfig, TrainConfig, load_bench
from lab.datasets import Dataset
from lab.errors import PassCancelled
from lab.measure import DeviceMeasure, DirectRun, Share
from lab.methods import MethodParts, choose_method
from lab.micro_batches import AutoMicroBatches, StepCost, choose
from lab.models import PhysicalNetwork, build_network
from lab.pat import PhysicalLayer, Physics
from lab.pipeline import Pipeline, replica
from lab.scheduling.scheduled_run import ScheduledRun
from lab.scheduling.scheduler import HardwareScheduler
from lab.systems.base import PhysicalSystem, SystemDescription, never
from lab.trainer import TrainResult, train
from lab.twins import FittedTwin
from twins.base import frozen
from twins.fitting import MeasuredRows, TwinError
from twins.optics import OpticsTwin

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")
LIMIT_S = 20.0  # no wait in these tests lasts so long unless something hangs
SAMPLES, BATCH, LAYERS = 14, 9, 3  # batches of 9 and 5: no number of parts divides both

# Double precision, and gradients that differ in the order of their sums: 1e-16 of a sum of terms
# of order 1, which Adam may enlarge where a gradient is small. A row with another key, or a sample
# with another weight, changes a parameter by more than 1e-3.
ROUNDING = 1e-8


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("micro-batch")]


@contextmanager
def optics(noise: float) -> Iterator[Apparatus]:
    rig = BENCH.rigs["optics"].model_copy(update={"noise": noise})
    with open_bench(BENCH.model_copy(update={"rigs": {"optics": rig}})) as bench:
        yield open_apparatus(bench, "optics")


class KeepingRun(DirectRun):
    """Remember each row by its number, and how often a row was measured."""

    def __init__(self, system: PhysicalSystem) -> None:
        super().__init__(system)
        self.rows: dict[int, tuple[RowKey, Array, Array]] = {}
        self.calls = 0

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        self.calls += len(keys)
        self.rows.update((k.index, (k, *row)) for k, *row in zip(keys, x, theta, strict=True))
        return super().__call__(x, theta, keys, depth=depth, stopped=stopped)


@dataclass
class Trained:
    network: PhysicalNetwork
    device: DeviceMeasure
    parts: MethodParts


def run_steps(apparatus: Apparatus, method: Method, micro_batches: int, epochs: int = 2) -> Trained:
    """Train for some epochs of two steps, in double precision."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(SAMPLES, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(SAMPLES) % 3
    device = apparatus.open_device(0, 0)
    twin = frozen(OpticsTwin().double())
    parts = choose_method(
        method, device, twin, twin_error=0.1, open_oracle=apparatus.open_oracle, seed=0
    )
    network = build_network(
        parts.measure,
        parts.differentiate,
        NetworkConfig(layers=LAYERS),
        x_size=50,
        theta_size=50,
        y_size=50,
        classes=3,
        seed=0,
    ).double()
    network.initialise(features)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.03)

    def loss(network: PhysicalNetwork, rows: Tensor) -> tuple[Tensor, int]:
        fit = nn.functional.cross_entropy(network(features[rows]), labels[rows])
        return fit + 5 * network.penalty, len(rows)

    with Pipeline(network, parts.share, micro_batches) as pipeline:
        for rows in epochs * torch.arange(SAMPLES).split(BATCH):
            optimiser.zero_grad()
            assert sum(pipeline.step(rows, loss)) == len(rows)
            optimiser.step()
            if parts.refit is not None:
                parts.refit.step()
    return Trained(network, device, parts)


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=ROUNDING, rtol=ROUNDING, msg=name)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("method", ["pat", "pat-refit", "ideal"])
def test_split_steps_are_the_unsplit_ones_up_to_rounding(method: Method, noise: float) -> None:
    with optics(noise) as apparatus:
        unsplit = run_steps(apparatus, method, 1)
        for micro_batches in (2, 3, 4, 8):
            split = run_steps(apparatus, method, micro_batches)
            assert_same(unsplit.network.state_dict(), split.network.state_dict())
            assert split.device.rows == unsplit.device.rows == LAYERS * SAMPLES * 3


def test_a_row_keeps_its_key_however_the_step_is_split() -> None:
    measured: list[KeepingRun] = []
    with open_bench(BENCH) as bench:
        for micro_batches in (1, 2, 3, 4, 8):
            measured.append(KeepingRun(bench.system("optics")))
            apparatus = open_apparatus(bench, "optics", measured[-1])
            run_steps(apparatus, "pat", micro_batches)
    unsplit, *others = measured
    assert sorted(unsplit.rows) == list(range(LAYERS * SAMPLES * 3))
    for split in others:
        assert split.calls == len(split.rows)  # no key twice
        assert split.rows.keys() == unsplit.rows.keys()
        for index, (key, x, theta) in split.rows.items():
            assert key == unsplit.rows[index][0]
            np.testing.assert_allclose(x, unsplit.rows[index][1], atol=ROUNDING)
            np.testing.assert_allclose(theta, unsplit.rows[index][2], atol=ROUNDING)


@pytest.mark.parametrize("micro_batches", [2, 3, 8])
def test_a_refit_sees_the_rows_of_the_unsplit_step(micro_batches: int) -> None:
    with optics(1.0) as apparatus:
        unsplit, split = (
            run_steps(apparatus, "pat-refit", n, epochs=3).parts for n in (1, micro_batches)
        )
    a, b = unsplit.refit, split.refit
    assert a is not None
    assert b is not None
    assert (a.updates, a.accepted, a.rolled_back) == (b.updates, b.accepted, b.rolled_back)
    assert a.accepted + a.rolled_back > 0
    assert_same(unsplit.differentiate.state_dict(), split.differentiate.state_dict())
    for of_a, of_b in ((a._train, b._train), (a._gate, b._gate)):
        assert [len(call) for call in of_a] == [len(call) for call in of_b]
        for call, other in zip(of_a, of_b, strict=True):
            assert_same(vars(call), vars(other))


def test_refit_parts_may_arrive_in_any_order() -> None:
    def measure(x: Tensor, theta: Tensor) -> Tensor:
        return x + theta

    kept: list[list[MeasuredRows]] = []
    rows = torch.arange(24.0).reshape(2, 12, 1)  # of two layers
    with optics(1.0) as apparatus:
        for order in ([(0, 1), (0, 1)], [(1, 1), (0, 0)], [(1, 0), (1, 0)]):
            refit = choose_method(
                "pat-refit",
                apparatus.open_device(0, 0),
                OpticsTwin(),
                twin_error=0.1,
                open_oracle=apparatus.open_oracle,
                seed=0,
            ).refit
            assert refit is not None
            parts = [refit.part(measure, first) for first in (0, 7)]
            layer = [0, 0]
            for i in itertools.chain(*order):
                x = rows[layer[i]].tensor_split([7])[i]
                parts[i](x, x)
                layer[i] += 1
            refit._keep_arrived()
            kept.append([*refit._train, *refit._gate])
    for other in kept[1:]:
        for a, b in zip(kept[0], other, strict=True):
            assert_same(vars(a), vars(b))
    assert kept[0][0].x.flatten().tolist() == [*range(7), *range(8, 12)]  # every 8th is held out


# --- the trainer ----------------------------------------------------------------------------


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


# --- a user's own network -------------------------------------------------------------------


class Line(nn.Module):
    """A twin of a system with one input, one parameter and one output."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return x * theta


def simple_network(measure: Callable[[Tensor, Tensor], Tensor], layers: int) -> nn.Sequential:
    parts = [PhysicalLayer(torch.tensor([0.3 + 0.1 * i]), measure, Line()) for i in range(layers)]
    return nn.Sequential(*parts)


def squares(network: nn.Module, rows: Tensor) -> tuple[Tensor, int]:
    return network(rows[:, None]).square().mean(), len(rows)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {n: torch.zeros(1) if p.grad is None else p.grad for n, p in network.named_parameters()}


def test_any_network_and_measure_will_do() -> None:
    twin = Line()
    rows = torch.linspace(0.1, 0.9, 11, dtype=torch.float64)
    expected: dict[str, Tensor] = {}
    for micro_batches in (1, 4):
        network = nn.Sequential(simple_network(twin, 2), nn.Linear(1, 1), nn.Sigmoid()).double()
        nn.init.constant_(network[1].weight, 0.5)
        nn.init.constant_(network[1].bias, 0.1)
        with Pipeline(network, lambda share: (twin, twin), micro_batches) as pipeline:
            for _ in range(2):  # .grad is added to, as by `backward`
                assert sum(pipeline.step(rows, squares)) == 11
        expected = expected or gradients(network)
        assert_same(expected, gradients(network))


def test_a_replica_shares_what_is_trained_and_not_what_a_forward_leaves() -> None:
    network = simple_network(Line(), 2)
    network(torch.tensor([[1.5]]))  # leaves a penalty that belongs to a graph
    twin = replica(network)
    assert all(a is b for a, b in zip(network.parameters(), twin.parameters(), strict=True))
    assert twin[0].physics is network[0].physics
    left = network[0].penalty
    twin(torch.tensor([[0.5]]))
    assert network[0].penalty is left
    assert twin[0].penalty.item() < left.item()


def test_a_twin_that_learns_meanwhile_is_refused() -> None:
    twin = OpticsTwin()
    with pytest.raises(ValueError, match="frozen"):
        replica(PhysicalLayer(torch.rand(50), twin, twin))


def test_rows_that_are_no_multiple_of_the_samples_are_refused() -> None:
    with optics(1.0) as apparatus:
        part = apparatus.open_device(0, 0).part(Share(first=2, count=2, of=6))
        part(torch.rand(4, 50), torch.rand(4, 50))
        assert [key.index for key in part.last_keys] == [4, 5, 6, 7]
        with pytest.raises(ValueError, match="3 rows do not belong to 2 samples"):
            part(torch.rand(3, 50), torch.rand(3, 50))


def test_a_direct_run_that_is_stopped_says_so() -> None:
    with optics(1.0) as apparatus:
        part = apparatus.open_device(0, 0).part(Share(0, 2, 2, lambda: True))
        with pytest.raises(PassCancelled, match="0 of 2"):
            part(torch.rand(2, 50), torch.rand(2, 50))


# --- through the scheduler ------------------------------------------------------------------


class GatedSystem(PhysicalSystem):
    """y = x * theta; a row waits until the test lets it pass; the rows' keys are kept in order."""

    def __init__(self) -> None:
        super().__init__(announce=lambda key: self.keys.append(key))
        value = ArraySpec("value", "V", (1,), 0.0, 1.0)
        self.description = SystemDescription("rig", value, value, value, 0.0)
        self.instruments = ()
        self.keys: list[RowKey] = []
        self._gate = threading.Semaphore(0)

    def open_gate(self, rows: int = 1) -> None:
        self._gate.release(rows)

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        assert self._gate.acquire(timeout=LIMIT_S), "the test never opened the gate"
        return x * theta, False


class Rig:
    """A gated system behind a real scheduler that measures one row at a time."""

    def __init__(self) -> None:
        self.system = GatedSystem()
        # slices of one row: the next pass is chosen after every row
        self.scheduler = HardwareScheduler({"rig": self.system}, SchedulerConfig(slice_s=1e-9))

    def open_device(self, client: str, stream: int) -> DeviceMeasure:
        run = ScheduledRun(self.scheduler, "rig", client=client)
        return DeviceMeasure(self.system.description, run, stream=stream)

    async def waits(self, rows: int, passes: int) -> None:
        """Wait until so many rows have begun, and so many passes are under way."""
        async with asyncio.timeout(LIMIT_S):
            while (len(self.system.keys), len(self.scheduler.queued("rig"))) != (rows, passes):
                await asyncio.sleep(0)


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    rig = Rig()
    async with rig.scheduler:
        yield rig


def take_step(device: DeviceMeasure, network: nn.Module, samples: int, parts: int) -> None:
    twin = Line()

    def share(share: Share) -> Physics:
        return device.part(share), twin

    with Pipeline(network, share, parts, device.cancel) as pipeline:
        pipeline.step(torch.linspace(0.1, 0.9, samples), squares)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_the_deepest_layer_goes_first() -> None:
    async with open_rig() as rig:
        device = rig.open_device("job", 0)
        step = asyncio.create_task(
            asyncio.to_thread(take_step, device, simple_network(device, 3), 3, 3)
        )
        # parts that have not ended: each has a pass in the queue when the next row ends
        for row, alive in enumerate((3, 3, 3, 3, 3, 2, 1, 1, 1)):
            await rig.waits(row + 1, alive)
            rig.system.open_gate()
        await step
        # first come, first served would be 0 0 0 1 1 1 2 2 2
        assert [key.index // 3 for key in rig.system.keys] == [0, 0, 1, 1, 2, 2, 0, 1, 2]
        assert device.rows == 9


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_an_error_ends_the_step_and_the_other_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hops = itertools.count()

    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if next(hops) == 0:
                raise ArithmeticError("the first hop")
            return x

    left: list[int] = []

    def take_it() -> None:
        with Pipeline(network, lambda s: (device.part(s), Line()), 3, device.cancel) as pipeline:
            try:
                pipeline.step(torch.linspace(0.1, 0.9, 6), squares)
            finally:
                left.append(len(run.pass_ids))

    async with open_rig() as rig:
        run = ScheduledRun(rig.scheduler, "rig")
        device = DeviceMeasure(rig.system.description, run, stream=0)
        first, second = simple_network(device, 2)
        network = nn.Sequential(first, Faulty(), second)
        cancelled = asyncio.Event()
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, cancelled.set)
        monkeypatch.setattr(device, "cancel", lambda cancel=device.cancel: (cancel(), tell()))
        step = asyncio.create_task(asyncio.to_thread(take_it))
        await rig.waits(1, 3)
        rig.system.open_gate(2)  # the first part's two rows
        async with asyncio.timeout(LIMIT_S):
            await cancelled.wait()
        assert len(rig.scheduler.queued("rig")) <= 1
        rig.system.open_gate()  # the row in flight, if the next part came so far; no other
        with pytest.raises(ArithmeticError, match="the first hop"):
            await step
        assert rig.scheduler.queued("rig") == []
        assert left == [0]  # the error comes when all parts have ended
        assert rig.scheduler.status("rig").rows_done <= 3
        assert not any(p.grad is not None for p in network.parameters())


def test_the_other_parts_hear_that_one_has_failed() -> None:
    heard = threading.Event()

    def share(share: Share) -> Physics:
        def measure(x: Tensor, theta: Tensor) -> Tensor:
            if share.first == 0:
                raise ArithmeticError("the first part")
            end_s = time.monotonic() + LIMIT_S
            while not share.stopped():
                assert time.monotonic() < end_s
            heard.set()
            raise PassCancelled("the second part")

        return measure, Line()

    with Pipeline(simple_network(Line(), 1), share, 2) as pipeline:
        with pytest.raises(ArithmeticError, match="the first part"):
            pipeline.step(torch.rand(4), squares)
        assert heard.is_set()


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_two_jobs_on_one_bench_take_turns() -> None:
    async with open_rig() as rig:
        devices = [rig.open_device(f"job {i}", i) for i in range(2)]
        networks = [simple_network(device, 2) for device in devices]
        steps = [
            asyncio.create_task(asyncio.to_thread(take_step, device, network, 4, 2))
            for device, network in zip(devices, networks, strict=True)
        ]
        await rig.waits(1, 4)
        rig.system.open_gate(16)
        await asyncio.gather(*steps)
        streams = [key.stream for key in rig.system.keys]
        # after its first row a job has had more of the hardware than the other
        assert streams[0] != streams[1]
        assert sorted(streams) == [0] * 8 + [1] * 8
        assert_same(gradients(networks[0]), gradients(networks[1]))


# --- how many parts -------------------------------------------------------------------------


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
        self.main = threading.current_thread()
        self.threads: list[threading.Thread] = []  # of the calls

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        self.threads.append(threading.current_thread())
        if threading.current_thread() is self.main:
            self.clock.advance(self.call_s + self.row_s * len(x))
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

    auto = AutoMicroBatches(declared_s, clock)
    with Pipeline(network, lambda share: (device, twin), auto) as pipeline:
        with torch.no_grad():
            network(torch.rand(64, 1))  # the initialisation: larger calls
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
    auto = AutoMicroBatches(0.0, clock)
    timed = auto.timed(device)
    timed(torch.rand(64, 1), torch.rand(64, 1))
    for samples in (32, 8, 32):  # a smaller batch does not count
        with auto.timing(samples):
            timed(torch.rand(samples, 1), torch.rand(samples, 1))
            clock.advance(0.04)  # with the rows 104 ms
    for number, milliseconds in times_ms.items():
        for seconds in (0.2, milliseconds / 1000):  # the quicker one counts
            assert auto.number == number
            with auto.timing(32):
                clock.advance(seconds)
    for seconds in (1.0, 0.001, 0.001):  # decided for good
        assert auto.number == stays
        with auto.timing(32):
            clock.advance(seconds)
    assert auto.number == stays

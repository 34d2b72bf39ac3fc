"""Training steps in micro-batches: the same result, whatever the network."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.config import Method, TrainConfig
from lab.errors import PassCancelled
from lab.measure import DeviceMeasure, DirectRun, Share
from lab.methods import MethodParts, choose_method
from lab.models import PhysicalNetwork, build_network
from lab.network_config import NetworkConfig
from lab.pat import PhysicalLayer
from lab.pipeline import Pipeline, replica
from lab.systems.base import PhysicalSystem, never
from small_networks import (
    BENCH,
    ROUNDING,
    Line,
    assert_same,
    gradients,
    optics,
    simple_network,
    squares,
)
from twins.base import frozen
from twins.fitting import MeasuredRows
from twins.optics import OpticsTwin

pytestmark = pytest.mark.usefixtures("no_parts_left")

SAMPLES, BATCH, LAYERS = 14, 9, 3  # batches of 9 and 5: no number of parts divides both


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
        TrainConfig(method=method), device, twin, twin_error=0.1, open_oracle=apparatus.open_oracle
    )
    network = build_network(
        parts.measure,
        parts.differentiate,
        NetworkConfig(layers=LAYERS),
        features=5,
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
                TrainConfig(method="pat-refit"),
                apparatus.open_device(0, 0),
                OpticsTwin(),
                twin_error=0.1,
                open_oracle=apparatus.open_oracle,
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

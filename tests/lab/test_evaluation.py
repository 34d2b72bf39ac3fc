"""What a test measures: accuracy, its spread over time, and what the first samples show."""

import pytest
import torch
from torch import Tensor, nn

from drivers.row_key import RowKey
from drivers.spec import ArraySpec
from lab.evaluation import Witness, confusion, spread_accuracy
from lab.measure import DeviceMeasure
from lab.methods import NoisyTwin
from lab.models import PhysicalNetwork, build_network
from lab.network_config import NetworkConfig, Windows
from lab.systems.base import SystemDescription
from small_networks import optics
from twins.base import DigitalTwin, frozen
from twins.fitting import MeasuredRows, twin_error

ROW_S = 0.5
NETWORK = NetworkConfig(layers=2, parallel=2, last=(Windows(margin=0),))


def description(low: float = 0.0, high: float = 1.0) -> SystemDescription:
    x, theta = (ArraySpec(name, "V", (6,), 0.0, 1.0) for name in ("x", "theta"))
    return SystemDescription("made up", x, theta, ArraySpec("y", "V", (6,), low, high), ROW_S)


class KeyedRun:
    """A device that multiplies, and keeps the keys of its rows."""

    def __init__(self) -> None:
        self.keys: list[RowKey] = []

    def __call__(self, x, theta, keys, **_):  # type: ignore[no-untyped-def]
        self.keys += list(keys)
        return x * theta


class Product(DigitalTwin):
    """Its exact twin, but for a factor."""

    kind = "product"

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(6, 6, 6)
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.factor * x * theta


def network(measure: DeviceMeasure) -> PhysicalNetwork:
    sizes = {"features": 3, "x_size": 6, "theta_size": 6, "y_size": 6, "classes": 3}
    return build_network(measure, Product(), NETWORK, **sizes, seed=0)


FEATURES = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 3


def test_a_spread_test_lets_the_device_grow_older_between_its_parts() -> None:
    run = KeyedRun()
    device = DeviceMeasure(description(), run, stream=0, first_row=100)
    accuracy = spread_accuracy(network(device), device, FEATURES, LABELS, span_s=1000.0)
    assert 0 <= accuracy <= 1
    assert len(run.keys) == 40 * 4  # every sample once
    # ten parts of four samples, 16 rows each, a tenth of the span apart
    starts = [run.keys[16 * part].time_s for part in range(10)]
    assert starts == pytest.approx([100 * ROW_S + 100.0 * part for part in range(10)])
    times = [key.time_s for key in run.keys]
    assert times == sorted(times)


def test_a_span_shorter_than_the_test_itself_adds_no_wait() -> None:
    run = KeyedRun()
    device = DeviceMeasure(description(), run, stream=0)
    spread_accuracy(network(device), device, FEATURES, LABELS, span_s=1.0)
    assert [key.time_s for key in run.keys] == [ROW_S * i for i in range(160)]


def test_a_spread_test_of_a_drifting_device_is_another_test() -> None:
    """On simulated optics the same rows, a day apart, are measured differently."""
    with optics(noise=0.0) as apparatus:
        x = torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
        one, two = apparatus.open_device(0, 0), apparatus.open_device(0, 0)
        two.wait(86_400.0)
        assert not torch.equal(one(x, x), two(x, x))


def test_a_witness_measures_what_the_network_asks_and_tells_how_far_the_twin_is_off() -> None:
    run = KeyedRun()
    device = DeviceMeasure(description(), run, stream=0)
    net = network(device)
    shown = Witness(device, frozen(Product(1.1))).look(net, FEATURES, device)
    assert len(run.keys) == 40 * 4
    assert shown.twin_error == pytest.approx(0.1, rel=1e-4)
    assert shown.clamped_fraction is not None
    assert 0 <= shown.clamped_fraction <= 1
    measured, predicted = (torch.tensor(shown.spectrum[key]) for key in ("measured", "twin"))
    torch.testing.assert_close(1.1 * measured, predicted)
    # and goes: what is measured afterwards is not looked at any more
    assert all(layer.physics[0] is device for layer in net.layers)


def test_confusion_counts_samples_of_a_class_that_are_taken_for_another() -> None:
    table = confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 1]), 3)
    assert table == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


# errors and noise are relative to what the instrument shows for nothing


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(0.0, 2.0, 0.0), (-10.0, 10.0, 0.5), (-1.0, 3.0, 0.25), (2.0, 4.0, 0)]
)
def test_zero_is_where_the_instruments_zero_lies_in_its_range(
    low: float, high: float, zero: float
) -> None:
    assert description(low, high).zero == pytest.approx(zero)


def test_an_error_is_relative_to_the_signal_about_zero() -> None:
    x = torch.full((4, 6), 0.6)
    theta = torch.ones(4, 6)
    theta[::2] *= 0.9
    rows = MeasuredRows(x, theta, Product()(x, theta).detach())
    twin = frozen(Product(1.01))
    plain, about_half = twin_error(twin, rows), twin_error(twin, rows, zero=0.5)
    off = 0.01 * rows.y.square().mean().sqrt()
    assert plain.normalised == pytest.approx(0.01, rel=1e-3)
    expected = float(off / (rows.y - 0.5).square().mean().sqrt())
    assert about_half.normalised == pytest.approx(expected, rel=1e-3)
    assert about_half.r2 == plain.r2


def test_noise_of_in_silico_training_is_relative_to_it_too() -> None:
    x, theta = torch.full((2000, 6), 0.5), torch.ones(2000, 6)
    x[:1000] = 0.7
    twin = frozen(Product())
    noise = NoisyTwin(twin, 0.1, seed=0, zero=0.5)(x, theta) - twin(x, theta)
    assert float(noise[:1000].std()) == pytest.approx(0.1 * 0.2, rel=0.05)
    assert not noise[1000:].any()  # a silent row has no signal to be noisy

"""Fine-tuning of a trained network on a device that has changed."""

import pytest
import torch
from torch import Tensor, nn

from lab.config import NetworkConfig
from lab.models import PhysicalNetwork, build_network
from lab.pat import PhysicalLayer
from lab.refit import OnlineRefit
from lab.rematch import remember
from lab.tending import Corrected, TendSettings, TuneSettings, fine_tune, tend, tuner
from twins.base import DigitalTwin, frozen
from twins.fitting import MeasuredRows


class Device:
    """Two channels, each with an offset that may change; counts rows."""

    def __init__(self) -> None:
        self.offset, self.rows = torch.zeros(2), 0

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        self.rows += len(x)
        return torch.sigmoid(4 * (x - theta + self.offset))


class Twin(DigitalTwin):
    """The device's equation; the offset can be learned."""

    kind = "offset"

    def __init__(self) -> None:
        super().__init__(2, 2, 2)
        self.offset = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return torch.sigmoid(4 * (x - theta + self.offset))


class Small(nn.Module):
    """One physical layer and a digital gain."""

    def __init__(self, layer: PhysicalLayer) -> None:
        super().__init__()
        self.layer = layer
        self.gain = nn.Parameter(torch.tensor(8.0))

    @property
    def penalty(self) -> Tensor:
        return self.layer.penalty

    def forward(self, features: Tensor) -> Tensor:
        return self.gain * (self.layer(features) - 0.5)


def build() -> tuple[Device, Small, OnlineRefit]:
    device = Device()
    twin = Twin()
    frozen(twin)
    refit = OnlineRefit(twin, device, seed=0)
    return device, Small(PhysicalLayer(torch.full((2,), 0.5), refit.measure, twin)), refit


def samples() -> tuple[Tensor, Tensor]:
    features = torch.rand(64, 2, generator=torch.Generator().manual_seed(3))
    return features, features.argmax(1)


def loss(network: Small) -> float:
    features, labels = samples()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(network(features), labels))


def test_a_network_follows_its_device() -> None:
    device, network, refit = build()
    settings = TuneSettings(steps=30, rate_theta=0.02, rate_digital=0.02)
    device.offset = torch.tensor([0.3, 0.0])
    drifted = loss(network)
    optimiser, generator = tuner(network, settings), torch.Generator().manual_seed(0)
    losses = fine_tune(network, refit, *samples(), optimiser, settings, generator=generator)
    assert loss(network) < 0.5 * drifted
    assert losses[-1] < losses[0]
    assert refit.accepted > 0


def test_it_measures_what_its_settings_say() -> None:
    device, network, refit = build()
    settings = TuneSettings(steps=5, batch=24)  # 64 samples: two whole batches an order
    found = fine_tune(
        network,
        refit,
        *samples(),
        tuner(network, settings),
        settings,
        generator=torch.Generator().manual_seed(0),
    )
    assert device.rows == 5 * 24
    assert len(found) == 5


def test_theta_and_the_digital_parts_have_rates_of_their_own() -> None:
    _, network, _ = build()
    theta, digital = tuner(network, TuneSettings(rate_theta=0.1, rate_digital=0.2)).param_groups
    assert (theta["params"], theta["lr"]) == ([network.layer.theta], 0.1)
    assert (digital["params"], digital["lr"]) == ([network.gain], 0.2)


def test_samples_without_labels_are_refused() -> None:
    _, network, refit = build()
    settings = TuneSettings()
    with pytest.raises(ValueError, match="64 samples and 3 labels"):
        fine_tune(
            network,
            refit,
            samples()[0],
            torch.zeros(3, dtype=torch.long),
            tuner(network, settings),
            settings,
            generator=torch.Generator(),
        )


def test_a_corrected_twin_is_exact_at_the_measured_rows_and_has_the_twins_slope() -> None:
    device, twin = Device(), Twin()
    device.offset = torch.tensor([0.3, -0.2])
    x = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    theta = torch.full((8, 2), 0.5)
    corrected = Corrected(twin, MeasuredRows(x, theta, device(x, theta)))
    assert torch.allclose(corrected(x, theta), device(x, theta), atol=1e-6)
    moved = x + 0.1
    assert torch.allclose(
        corrected(moved, theta) - corrected(x, theta),
        twin(moved, theta) - twin(x, theta),
        atol=1e-6,
    )


def deep() -> tuple[Device, PhysicalNetwork, OnlineRefit, Tensor, Tensor]:
    """Return two layers of the device, trained on it as it was, and their samples."""
    device, twin = Device(), Twin()
    frozen(twin)
    refit = OnlineRefit(twin, device, seed=0)
    config = NetworkConfig.model_validate(
        {
            "layers": 2,
            "after": ({"kind": "rescale"},),
            "last": ({"kind": "windows", "margin": 0},),
        }
    )
    network = build_network(
        refit.measure, twin, config, features=2, x_size=2, theta_size=2, y_size=2, classes=2, seed=0
    )
    features, labels = samples()
    network.initialise(features)
    optimiser = tuner(network, TuneSettings(rate_theta=0.02, rate_digital=0.02))
    tune = TuneSettings(steps=40)
    generator = torch.Generator().manual_seed(0)
    fine_tune(network, refit, features, labels, optimiser, tune, generator=generator)
    network.set_measure(device)
    return device, network, refit, features, labels


def cross_entropy(network: PhysicalNetwork, features: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(network(features), labels))


def test_one_measurement_brings_a_network_back_to_its_device() -> None:
    settings = TendSettings()
    device, network, refit, features, labels = deep()
    trained, wanted = cross_entropy(network, features, labels), remember(network, features)
    device.offset = torch.tensor([0.3, -0.2])
    drifted = cross_entropy(network, features, labels)
    device.rows = 0
    optimiser = tuner(network, settings)
    expected = tend(network, refit, features, labels, wanted, optimiser, settings)
    assert device.rows == 2 * len(features)
    tended = cross_entropy(network, features, labels)
    assert drifted - trained > 0.1
    assert tended - trained < 0.5 * (drifted - trained)
    # what is expected after the steps is near what the device then gives
    now = remember(network, features)
    assert all((a - b).abs().mean() < 0.05 * b.std() for a, b in zip(expected, now, strict=True))


def test_a_failed_measurement_leaves_the_layers_with_their_device() -> None:
    settings = TendSettings()
    device, network, _, features, labels = deep()
    wanted = remember(network, features)

    def broken(x: Tensor, theta: Tensor) -> Tensor:
        raise RuntimeError("lamp off")

    refit = OnlineRefit(Twin(), broken, seed=0)
    with pytest.raises(RuntimeError, match="lamp off"):
        tend(network, refit, features, labels, wanted, tuner(network, settings), settings)
    assert all(layer.physics[0] is device for layer in network.layers)

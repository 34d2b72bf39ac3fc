"""Rematching a trained network, channel by channel, to a device that has changed."""

import pytest
import torch
from torch import Tensor, nn

from lab.config import NetworkConfig
from lab.models import PhysicalNetwork, build_network
from lab.network_config import Linear, Rescale, Skip
from lab.rematch import rematch, remember


class Device:
    """Eight channels, each with a gain and a zero that may change; counts rows."""

    def __init__(self) -> None:
        self.gain, self.zero, self.rows = torch.ones(8), torch.zeros(8), 0

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        self.rows += len(x)
        mixed = (x * theta).cumsum(1) / 8 + x.roll(3, 1)
        return torch.tanh(mixed) * self.gain + self.zero


def build(**changes: object) -> tuple[Device, PhysicalNetwork, Tensor]:
    """Return a device, a network of two layers on it, and 64 samples."""
    device = Device()
    config = NetworkConfig.model_validate(
        {
            "layers": 2,
            "after": (Rescale(), Skip()),
            "last": ({"kind": "windows", "margin": 1},),
            **changes,
        }
    )
    network = build_network(
        device,
        nn.Identity(),
        config,
        features=4,
        x_size=8,
        theta_size=8,
        y_size=8,
        classes=3,
        seed=0,
    )
    features = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
    network.initialise(features)
    return device, network, features


def test_what_each_channel_can_correct_is_corrected() -> None:
    device, network, features = build()
    with torch.no_grad():
        before = network(features)
        wanted = remember(network, features[:40])
        device.gain = torch.linspace(0.5, 1.5, 8)
        device.zero = torch.linspace(-0.2, 0.3, 8)
        drifted = network(features)
        rematch(network, features[:40], wanted, ridge=0.0)
        after = network(features)
    assert (drifted - before).abs().mean() > 0.5
    # the windows of the last layer average channels of different gain: that stays
    assert (after - before).abs().mean() < 0.3 * (drifted - before).abs().mean()
    assert torch.allclose(remember(network, features[:40])[0], wanted[0], atol=1e-4)


def test_on_the_same_device_nothing_changes_whatever_the_ridge() -> None:
    _, network, features = build()
    wanted = remember(network, features)
    with torch.no_grad():
        before = network(features)
        rematch(network, features, wanted, ridge=1.0)
        assert torch.allclose(network(features), before, atol=1e-3)


def test_it_measures_each_sample_once_a_layer() -> None:
    device, network, features = build()
    wanted = remember(network, features[:20])
    device.rows = 0
    rematch(network, features[:20], wanted)
    assert device.rows == 2 * 20


def test_stages_that_cannot_be_rematched_are_left_alone() -> None:
    device, network, features = build(after=(Rescale(start="signs"), Skip()), last=(Linear(),))
    assert remember(network, features) == []
    state = {name: value.clone() for name, value in network.state_dict().items()}
    device.gain = torch.full((8,), 0.5)
    rematch(network, features, [])
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_outputs_of_other_samples_are_refused_before_measuring() -> None:
    device, network, features = build()
    wanted = remember(network, features[:20])
    device.rows = 0
    with pytest.raises(ValueError, match="rematch 2 stages to with 21 samples"):
        rematch(network, features[:21], wanted)
    with pytest.raises(ValueError, match="1 outputs"):
        rematch(network, features[:20], wanted[:1])
    assert device.rows == 0

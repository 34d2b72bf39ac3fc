"""The layer: what it sends to device and twin, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fake_physics import Device, Twin, inputs
from lab.pat import PhysicalLayer, excess


def test_a_perfect_twin_gives_exactly_autograds_gradient() -> None:
    twin = Twin()
    layers = [PhysicalLayer(torch.rand(3), twin, twin) for _ in range(3)]
    x, _ = inputs()
    nn.Sequential(*layers)(x).square().sum().backward()
    a = x.detach().clone().requires_grad_()
    thetas = [layer.theta.detach().clone().requires_grad_() for layer in layers]
    h = a
    for theta in thetas:
        h = twin(h.clamp(0, 1), theta.clamp(0, 1).expand(len(h), -1))
    h.square().sum().backward()
    assert torch.equal(x.grad, a.grad)
    for layer, theta in zip(layers, thetas, strict=True):
        assert torch.equal(layer.theta.grad, theta.grad)


def test_device_and_twin_see_the_clamped_values() -> None:
    device = Device()
    layer = PhysicalLayer(torch.tensor([-0.5, 0.5, 1.5]), device, Twin())
    x = torch.tensor([[1.25, 0.5, -0.25]], requires_grad=True)
    layer(x).sum().backward()
    sent_x, sent_theta = device.calls[0]
    assert sent_x.tolist() == [[1.0, 0.5, 0.0]]
    assert sent_theta.tolist() == [[0.0, 0.5, 1.0]]
    assert x.grad[0, 0] == 0
    assert x.grad[0, 2] == 0
    expected = (0.25**2 + 0.25**2) / 3 + (0.5**2 + 0.5**2) / 3
    assert layer.penalty.item() == pytest.approx(expected)


def test_the_penalty_pulls_back_into_the_range() -> None:
    u = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    excess(u).backward()
    assert u.grad[0] < 0
    assert u.grad[1] == 0
    assert u.grad[2] > 0
    assert excess(torch.tensor([0.0, 1.0])).item() == 0


def test_the_twin_is_no_part_of_the_network() -> None:
    layer = PhysicalLayer(torch.rand(3), Twin(), Twin())
    assert [name for name, _ in layer.named_parameters()] == ["theta"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_never_measures_twice(reentrant: bool) -> None:
    device = Device()
    layer = PhysicalLayer(torch.rand(3), device, Twin())
    y = checkpoint(layer, inputs()[0], use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match="must not be checkpointed"):
        y.sum().backward()
    assert len(device.calls) == 1

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


def passes_of(x: torch.Tensor) -> tuple[Device, PhysicalLayer, torch.Tensor]:
    """Measure x (samples, 2 passes, 3) with a theta for each pass."""
    device = Device()
    theta = torch.rand(2, 3, generator=torch.Generator().manual_seed(5))
    layer = PhysicalLayer(theta, device, Twin())
    return device, layer, layer(x)


def test_passes_have_a_theta_each_and_a_samples_rows_stand_together() -> None:
    x = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(6))
    device, layer, y = passes_of(x)
    ((sent_x, sent_theta),) = device.calls
    assert layer.theta is not None
    # sample 0's two passes, then sample 1's: a micro-batch can have whole samples
    assert torch.equal(sent_x, x.reshape(8, 3))
    assert torch.equal(sent_theta, layer.theta.detach().repeat(4, 1))
    assert y.shape == (4, 2, 3)


def test_with_passes_the_value_is_the_measurement_and_the_gradient_the_twins() -> None:
    x = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(6)).requires_grad_()
    device, layer, y = passes_of(x)
    again = Device()
    assert torch.equal(y.detach().reshape(8, 3), again(*device.calls[0]))
    g = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(7))
    y.backward(g)
    assert layer.theta is not None
    a, theta = (t.detach().clone().requires_grad_() for t in (x, layer.theta))
    predicted = Twin()(a.reshape(8, 3), theta.expand(4, 2, 3).reshape(8, 3))
    expected = torch.autograd.grad(predicted, (a, theta), g.reshape(8, 3))
    assert torch.equal(x.grad, expected[0])
    torch.testing.assert_close(layer.theta.grad, expected[1])


@pytest.mark.parametrize("leading", [(5,), (5, 2)])
def test_without_parameters_x_carries_thetas_values_too(leading: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(8)
    h = torch.rand(*leading, 6, generator=generator).requires_grad_()
    device = Device()
    layer = PhysicalLayer(None, device, Twin(), x_size=3)
    assert list(layer.parameters()) == []
    y = layer(h)
    ((x, theta),) = device.calls
    rows = h.detach().reshape(-1, 6)
    assert torch.equal(x, rows[:, :3])
    assert torch.equal(theta, rows[:, 3:])
    assert torch.equal(y.detach().reshape(-1, 3), Device()(x, theta))
    g = torch.randn(y.shape, generator=generator)
    y.backward(g)
    a = rows.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Twin()(a[:, :3], a[:, 3:]), a, g.reshape(-1, 3))
    assert torch.equal(h.grad.reshape(-1, 6), expected)


def test_a_layer_without_parameters_is_penalised_for_theta_too() -> None:
    layer = PhysicalLayer(None, Device(), Twin(), x_size=3)
    layer(torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5, 1.5]]))
    assert layer.penalty.item() == pytest.approx(0.25 / 6)


def test_physics_without_limits_is_sent_what_is_asked() -> None:
    device = Device()
    layer = PhysicalLayer(torch.tensor([-0.5, 0.5, 1.5]), device, Twin())
    layer.clamped = False
    x = torch.tensor([[1.25, 0.5, -0.25]])
    layer(x)
    assert device.calls[0][0].tolist() == x.tolist()
    assert device.calls[0][1].tolist() == [[-0.5, 0.5, 1.5]]

"""Physics-aware training: the value is the measurement, the gradient is the twin's."""

import pytest
import torch
from torch import Tensor, nn

from fake_physics import Device, Twin, inputs
from lab.pat import pat


def test_value_is_the_measurement_bit_for_bit() -> None:
    x, theta = inputs()
    kept: list[Tensor] = []
    device = Device()

    def measure(x: Tensor, theta: Tensor) -> Tensor:
        kept.append(device(x, theta))
        return kept[-1]

    y = pat(x, theta, measure, Twin())
    assert torch.equal(y, kept[0])
    assert y.requires_grad
    assert not kept[0].requires_grad


def test_what_the_device_keeps_is_not_changed_with_the_output() -> None:
    x, theta = inputs()
    kept = torch.rand(4, 3)
    before = kept.clone()
    pat(x, theta, lambda x, theta: kept, Twin()).mul_(2).sum().backward()
    assert torch.equal(kept, before)


class Ending(Twin):
    """A twin whose last operation needs its own output, or has none, for its derivative."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.end(x + 2 * theta)


@pytest.mark.parametrize("end", [nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.Identity()])
def test_the_measurement_does_not_disturb_what_the_twin_keeps_for_its_derivative(
    end: nn.Module,
) -> None:
    x, theta = inputs()
    g = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    twin = Ending(end)
    got = torch.autograd.grad(pat(x, theta, Device(), twin), (x, theta), g)
    expected = torch.autograd.grad(twin(x, theta), (x, theta), g)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_twin_that_returns_its_input_leaves_the_input_as_it_was() -> None:
    class Through(nn.Module):
        def forward(self, x: Tensor, theta: Tensor) -> Tensor:
            return x

    x, theta = inputs()
    before = x.detach().clone()
    y = pat(x, theta, Device(), Through())
    y.sum().backward()
    assert torch.equal(x, before)
    assert torch.equal(x.grad, torch.ones_like(x))
    assert theta.grad is None


def test_gradient_is_the_twins_vjp_at_the_measured_point() -> None:
    x, theta = inputs()
    g = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    pat(x, theta, Device(), Twin()).backward(g)
    a, b = (t.detach().clone().requires_grad_() for t in (x, theta))
    expected = torch.autograd.grad(Twin()(a, b), (a, b), g)
    assert torch.equal(x.grad, expected[0])
    assert torch.equal(theta.grad, expected[1])


def test_only_needed_gradients_are_computed() -> None:
    x, theta = inputs()
    asked: list[bool] = []

    class Spy(Twin):
        def forward(self, x: Tensor, theta: Tensor) -> Tensor:
            asked.extend((x.requires_grad, theta.requires_grad))
            return super().forward(x, theta)

    pat(x.detach(), theta, Device(), Spy()).sum().backward()
    assert asked == [False, True]
    assert x.grad is None
    assert theta.grad is not None


def test_without_gradients_the_twin_is_not_asked() -> None:
    x, theta = inputs()
    twin = Twin()
    with torch.no_grad():
        pat(x, theta, Device(), twin)
    pat(x.detach(), theta.detach(), Device(), twin)
    assert twin.calls == 0


def test_the_device_is_measured_once_and_never_in_backward() -> None:
    x, theta = inputs()
    device = Device()
    loss = pat(x, theta, device, Twin()).sum()
    loss.backward()
    assert len(device.calls) == 1
    assert not device.calls[0][0].requires_grad


def test_the_twins_own_parameters_get_no_gradient() -> None:
    x, theta = inputs()
    twin = Twin()
    pat(x, theta, Device(), twin).sum().backward()
    assert twin.a.grad is None


def test_a_twin_of_which_only_a_part_is_frozen_gets_no_gradient_either() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Identity(), Twin()])
            self.inner[0].requires_grad_(False)

        def forward(self, x: Tensor, theta: Tensor) -> Tensor:
            return self.inner[2](self.inner[0](x), theta)

    x, theta = inputs()
    twin = Nested()
    pat(x, theta, Device(), twin).sum().backward()
    assert x.grad is not None
    assert [name for name, p in twin.named_parameters() if p.grad is not None] == []


@pytest.mark.parametrize("learns", [True, False])
def test_hooks_of_the_twin_and_of_the_output_run(learns: bool) -> None:
    x, theta = inputs()
    twin = Twin().requires_grad_(learns)
    predicted: list[Tensor] = []
    twin.register_forward_hook(lambda module, args, y: predicted.append(y.detach()))
    y = pat(x, theta, Device(), twin)
    y.register_hook(lambda g: 3 * g)
    y.sum().backward()
    assert len(predicted) == 1
    assert torch.equal(predicted[0], twin(x, theta).detach())
    a, b = (t.detach().clone().requires_grad_() for t in (x, theta))
    expected = torch.autograd.grad(Twin()(a, b), a, torch.full((4, 3), 3.0))
    assert torch.equal(x.grad, expected[0])


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_is_left_as_found(enabled: bool) -> None:
    x, theta = inputs()
    loss = pat(x, theta, Device(), Twin()).sum()
    with torch.set_grad_enabled(enabled):
        pat(x, theta, Device(), Twin())
        assert torch.is_grad_enabled() is enabled
        loss.backward()
        assert torch.is_grad_enabled() is enabled


def test_dtype_and_strides_are_handled() -> None:
    wide, _ = inputs(dtype=torch.float64)
    x = wide.detach().t().contiguous().t()[:, [2, 0, 1]].requires_grad_()
    assert x.dtype == torch.float64
    strided = torch.rand(3, 4, dtype=torch.float64).t().requires_grad_()
    y = pat(strided, wide, Device(), Twin())
    y.sum().backward()
    assert y.dtype == torch.float64
    assert strided.grad.dtype == torch.float64


def test_a_measurement_more_precise_than_the_twin_keeps_its_bits() -> None:
    x, theta = inputs()
    measured = torch.rand(4, 3, dtype=torch.float64)
    y = pat(x, theta, lambda x, theta: measured, Twin())
    y.sum().backward()
    assert torch.equal(y, measured)
    assert x.grad.dtype == theta.grad.dtype == torch.float32


def test_the_gradient_returns_to_the_twins_device() -> None:
    x, theta = (t.detach().to("meta").requires_grad_() for t in inputs())
    y = pat(x, theta, lambda x, theta: torch.rand(4, 3), Twin().to("meta"))
    y.sum().backward()
    assert y.device.type == "cpu"
    assert x.grad.device.type == theta.grad.device.type == "meta"


def test_double_backward_is_refused_with_the_reason() -> None:
    x, theta = inputs()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(pat(x, theta, Device(), Twin()).sum(), x, create_graph=True)


def test_a_loss_has_second_derivatives_by_the_measurement() -> None:
    y = pat(*inputs(), Device(), Twin())
    (g,) = torch.autograd.grad(y.pow(3).sum(), y, create_graph=True)
    (second,) = torch.autograd.grad(g.sum(), y)
    torch.testing.assert_close(second, 6 * y.detach())


def test_backward_twice_over_a_retained_graph_adds_up() -> None:
    x, theta = inputs()
    loss = pat(x, theta, Device(), Twin()).sum()
    loss.backward(retain_graph=True)
    once = x.grad.clone()
    loss.backward()
    assert torch.equal(x.grad, 2 * once)


def test_torch_func_is_refused() -> None:
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda x: pat(x, x, Device(), Twin()).sum())(torch.rand(4, 3))


def test_rows_and_shapes_that_differ_are_refused() -> None:
    x, theta = inputs()
    with pytest.raises(ValueError, match="4 rows of x but 3 rows of theta"):
        pat(x, theta[:3], Device(), Twin())
    with pytest.raises(ValueError, match="twin predicts"):
        pat(x, theta, lambda x, t: x[:, :2], Twin())

"""Physics-aware training: forward on the hardware, backward through the twin.

Wright et al., "Deep physical neural networks trained with backpropagation", Nature 601, 549 (2022),
eqs. 3-4: y = f_p(x, theta) is measured; the gradients are the twin's vector-Jacobian product at the
measured x and the theta in use. Hardware is never touched in backward.

All tensors here are normalised: 0 and 1 are the ends of the declared ranges.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Measure = Callable[[Tensor, Tensor], Tensor]
"""What measures: x (rows, x_size), theta (rows, theta_size) -> y (rows, y_size), normalised."""


Physics = tuple[Measure, nn.Module]
"""What a layer's forward asks, and what differentiates it."""


class PATFunction(torch.autograd.Function):
    """Put the measured value in the place of the twin's prediction, whose gradient stays.

    PATFunction.apply(predicted, measured) -> y, all (rows, y_size): the value of y is `measured`
    bit for bit; what flows back goes through the twin, at the x and theta it was called with.
    """

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, measured: Tensor) -> Tensor:
        """Return the measurement; raise ValueError if the twin predicts another shape."""
        if predicted.shape != measured.shape:
            raise ValueError(
                f"the twin predicts {tuple(predicted.shape)}, measured was {tuple(measured.shape)}"
            )
        ctx.device = predicted.device
        # what `measure` may keep (in a replay buffer, say) must not become the graph's output
        return measured.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient on to the twin's prediction, in its dtype and on its device."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "PAT has no second derivative: the hardware gives values only "
                "(call backward or grad without create_graph)"
            )
        g = grads[0]  # autograd itself returns to the prediction's dtype, but not to its device
        return g if g.device == ctx.device else g.to(ctx.device), None


def pat(x: Tensor, theta: Tensor, measure: Measure, twin: nn.Module) -> Tensor:
    """Return measure(x, theta), differentiable by x and theta through the twin; (rows, ...).

    The hardware is asked once, here, and never in backward; the twin is asked only if somebody
    needs a gradient, and its own parameters get none. Raises ValueError if x and theta differ in
    rows or the twin's output in shape.
    """
    if len(x) != len(theta):
        raise ValueError(f"{len(x)} rows of x but {len(theta)} rows of theta")
    if measure is twin:  # in-silico: what is measured is the prediction itself
        return _predict(twin, x, theta)
    measured = measure(x.detach(), theta.detach())
    if not (torch.is_grad_enabled() and (x.requires_grad or theta.requires_grad)):
        return measured
    y: Tensor = PATFunction.apply(  # type: ignore[no-untyped-call]
        _predict(twin, x, theta), measured
    )
    return y


def _predict(twin: nn.Module, x: Tensor, theta: Tensor) -> Tensor:
    """Return twin(x, theta) without recording what its own parameters did."""
    if not _learns(twin):
        predicted: Tensor = twin(x, theta)
        return predicted
    detached = {name: p.detach() for name, p in twin.named_parameters()}
    result: Tensor = torch.func.functional_call(twin, detached, (x, theta))
    return result


def _learns(module: nn.Module) -> bool:
    """Say whether any parameter of the module wants a gradient.

    Asked for every measurement, so it reads the modules' own tables: a walk through `parameters()`
    costs 3 % of a small twin's forward and backward.
    """
    for parameter in module._parameters.values():
        if parameter is not None and parameter.requires_grad:
            return True
    for child in module._modules.values():  # noqa: SIM110 (a generator costs as much again)
        if child is not None and _learns(child):
            return True
    return False


def excess(u: Tensor) -> Tensor:
    """Return the mean squared amount by which u leaves 0..1: the soft penalty of the authors."""
    return (torch.relu(u - 1).square() + torch.relu(-u).square()).mean()


class PhysicalLayer(nn.Module):
    """A layer whose forward is a physical measurement; holds the physical parameters theta.

    x (rows, x_size) -> y (rows, y_size), with one theta for all rows; or, where several passes look
    at the same sample, x (samples, passes, x_size) -> y (samples, passes, y_size), with a theta for
    each pass. x and theta are clamped to 0..1 before both the device and the twin, so that the twin
    sees what was sent; `penalty` is, after each call, the mean squared amount by which they left
    the range, to be added to the loss. `clamped` False lets them pass: for physics that has no
    limits.
    """

    def __init__(
        self, theta: Tensor | None, measure: Measure, twin: nn.Module, *, x_size: int | None = None
    ) -> None:
        """Start from theta (theta_size,) or (passes, theta_size), normalised.

        None: there are no parameters, x carries `x_size` values for x and then those for theta. See
        `Measure` for what measures.
        """
        super().__init__()
        self._physics: Physics
        self._x_size = x_size
        self.theta = None if theta is None else nn.Parameter(theta.clone())
        self.clamped = True
        self.penalty = torch.zeros(())
        self.set_physics(measure, twin)

    def set_physics(self, measure: Measure, twin: nn.Module | None = None) -> None:
        """Exchange what measures, and what differentiates where `twin` is given."""
        # in a tuple: a twin may do either, but is never part of the network's own parameters
        self._physics = (measure, self._physics[1] if twin is None else twin)

    @property
    def physics(self) -> Physics:
        """Get what measures and what differentiates."""
        return self._physics

    def forward(self, x: Tensor) -> Tensor:
        """Measure the layer's output for x (rows, x_size) or more, normalised."""
        _refuse_repeated_forward()
        self.penalty = excess(x) if self.theta is None else excess(x) + excess(self.theta)
        leading = x.shape[:-1]
        rows = self._bounded(x).flatten(0, -2)
        if self.theta is None:
            x, theta = rows[:, : self._x_size], rows[:, self._x_size :]
        else:
            x = rows
            theta = self._bounded(self.theta.to(x))
            theta = theta.expand(*leading, theta.shape[-1]).flatten(0, -2)
        y = pat(x, theta, *self._physics)
        return y.reshape(*leading, y.shape[1])

    def _bounded(self, values: Tensor) -> Tensor:
        return values.clamp(0, 1) if self.clamped else values


def _refuse_repeated_forward() -> None:
    """Refuse activation checkpointing, which runs the forward again inside backward."""
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "a PhysicalLayer must not be checkpointed: the forward would be measured twice"
        )

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


class PATFunction(torch.autograd.Function):
    """y = measure(x, theta), with the gradient of twin(x, theta).

    The value equals the measurement bit for bit; the gradient is the twin's vector-Jacobian product
    at the x and theta that were sent. Only gradients that are needed are computed.
    Use `pat`, which also skips the twin when nobody needs a gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, measure: Measure, twin: nn.Module) -> Tensor:
        """Measure y (rows, y_size); record the twin's graph at the same point."""
        y = measure(x.detach(), theta.detach())
        if any(ctx.needs_input_grad[:2]):
            with torch.enable_grad():
                point = (
                    x.detach().requires_grad_(ctx.needs_input_grad[0]),
                    theta.detach().requires_grad_(ctx.needs_input_grad[1]),
                )
                predicted = twin(*point)
            if predicted.shape != y.shape:
                raise ValueError(
                    f"the twin predicts {tuple(predicted.shape)} where {tuple(y.shape)} was measured"
                )
            ctx.point, ctx.predicted = point, predicted
        # a view of what `measure` may keep (a replay buffer, say) must not become the graph's output
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the twin's vector-Jacobian product for the inputs that need one."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "PAT has no second derivative: the hardware gives values only "
                "(call backward or grad without create_graph)"
            )
        needed = [tensor for tensor in ctx.point if tensor.requires_grad]
        found = iter(
            torch.autograd.grad(
                ctx.predicted,
                needed,
                grads[0].to(ctx.predicted),
                retain_graph=True,
                materialize_grads=True,
            )
        )
        g_x, g_theta = (next(found) if t.requires_grad else None for t in ctx.point)
        return g_x, g_theta, None, None


def pat(x: Tensor, theta: Tensor, measure: Measure, twin: nn.Module) -> Tensor:
    """Return measure(x, theta), differentiable through the twin; (rows, ...) in and out.

    Raises ValueError if x and theta differ in rows or the twin's output in shape.
    """
    if len(x) != len(theta):
        raise ValueError(f"{len(x)} rows of x but {len(theta)} rows of theta")
    if not (torch.is_grad_enabled() and (x.requires_grad or theta.requires_grad)):
        return measure(x, theta)
    y: Tensor = PATFunction.apply(x, theta, measure, twin)
    return y


def excess(u: Tensor) -> Tensor:
    """Return the mean squared amount by which u leaves 0..1: the soft penalty of the authors."""
    return (torch.relu(u - 1).square() + torch.relu(-u).square()).mean()


class PhysicalLayer(nn.Module):
    """A layer whose forward is a physical measurement; holds the physical parameters theta.

    x (rows, x_size) -> y (rows, y_size). x and theta are clamped to 0..1 before both the
    device and the twin, so that the twin sees what was sent; `penalty` is, after each call, the
    mean squared amount by which they left the range, to be added to the loss.
    """

    def __init__(self, theta: Tensor, measure: Measure, twin: nn.Module) -> None:
        """Start from theta (theta_size,), normalised; see `Measure` for what measures."""
        super().__init__()
        self._physics: tuple[Measure, nn.Module]
        self.theta = nn.Parameter(theta.clone())
        self.penalty = torch.zeros(())
        self.set_physics(measure, twin)

    def set_physics(self, measure: Measure, twin: nn.Module | None = None) -> None:
        """Exchange what measures, and what differentiates where `twin` is given."""
        # in a tuple: a twin may do either, but is never part of the network's own parameters
        self._physics = (measure, self._physics[1] if twin is None else twin)

    def forward(self, x: Tensor) -> Tensor:
        """Measure the layer's output for x (rows, x_size), normalised."""
        _refuse_repeated_forward()
        self.penalty = excess(x) + excess(self.theta)
        x = x.clamp(0, 1)
        theta = self.theta.to(x).clamp(0, 1).expand(len(x), -1)
        return pat(x, theta, *self._physics)


def _refuse_repeated_forward() -> None:
    if torch.compiler.is_compiling():
        raise RuntimeError("a PhysicalLayer must not be compiled: its forward is a measurement")
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is not None and "checkpoint" in getattr(hooks[0], "__module__", ""):
        raise RuntimeError(
            "a PhysicalLayer must not be checkpointed: the forward would be measured twice"
        )

"""The structured twin of the nonlinear circuit: its equations, learned component values.

A series resonator, two diodes across its capacitor, a transistor that opens at a current, an
amplifier. Unfitted, the values are the data sheets'; a fit moves them. What the drawing has no word
for (the output amplifier's settling, the Early effect, converters, drift, noise) it cannot express.

Four symplectic Euler steps a sample, all rows at once. Their backward pass is written by hand
(`_Resonator`): autograd would record thousands of small operations.

Units: time in samples of 1 us; voltages and currents relative, a drive of 1 is full scale.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from twins.base import DigitalTwin

_SUBSTEPS = 4
_KNEE, _KNEE_SLOPE = 0.5, 5.0
_THRESHOLD = 30.0  # softplus(z) is z beyond; off by 1e-13
_TEXTBOOK = {
    "resonance": 0.3,
    "quality": 15.0,
    "drive": 1.6,
    "conductance": 1.2,
    "width": 0.2,
    "threshold": 0.3,
    "reverse_threshold": 0.75,
    "collector": 0.6,
}
# The amplifier is set so that uniformly random drives give mean 0 and standard deviation 0.5 of a
# third of full scale. These are the textbook circuit's own; a test compares them with the bench's.
_OFFSET = 0.05125331422516443
_GAIN = 0.9389581360285179
_FULL_SCALE = 3.0


class CircuitTwin(DigitalTwin):
    """The circuit's equations with learned component values: x, theta, y are (rows, samples) each.

    x and theta are normalised series (0 is -1, 1 is 1 of full scale), added and clamped to full
    scale; y is the input's voltage, 0 to 1 for the whole of its range.
    """

    kind = "circuit-structured"

    def __init__(self, samples: int = 208) -> None:
        super().__init__(samples, samples, samples)
        logs = torch.tensor([math.log(value) for value in _TEXTBOOK.values()])
        self.log_values = nn.Parameter(logs)
        self.offset = nn.Parameter(torch.tensor(_OFFSET))
        self.log_gain = nn.Parameter(torch.tensor(math.log(_GAIN)))

    def values(self) -> dict[str, float]:
        """Return the component values by name."""
        return dict(zip(_TEXTBOOK, self.log_values.detach().exp().tolist(), strict=True))

    def fit_groups(self, rate: float) -> list[dict[str, object]]:
        """Learn at four times the base rate: ten logarithms, some of which have to go far."""
        return [{"params": list(self.parameters()), "lr": 4 * rate}]

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Predict normalised responses (rows, samples)."""
        u = (2 * (x + theta) - 2).clamp(-1, 1)
        w, quality, drive, g, width, on, reverse, collector = self.log_values.exp().unbind()
        i, v = _Resonator.apply(  # type: ignore[no-untyped-call]
            u.t(), w / _SUBSTEPS, 1 / quality, drive, g, width, on, reverse
        )
        y = v + 0.2 * collector * nn.functional.softplus(_KNEE_SLOPE * (i - _KNEE))
        y_t: Tensor = (y - self.offset) * (self.log_gain.exp() / (2 * _FULL_SCALE)) + 0.5
        return y_t.t()


class _Resonator(torch.autograd.Function):
    """Current and voltage at the end of each sample, (samples, rows), for drives of that shape.

    Steps n from rest (h, loss, ...: the arguments, scalars):
    i' = i + h (drive u - loss i - v);  v' = v + h (i' - d(v) + d(0)).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        u = u.contiguous()
        i, v = _integrate(u, *(float(value) for value in values))
        ctx.save_for_backward(u, i, v, *values)
        return i[_SUBSTEPS::_SUBSTEPS], v[_SUBSTEPS::_SUBSTEPS]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, i, v, *values = ctx.saved_tensors
        h, loss, drive, g, width, on, reverse = values
        slope = g * torch.sigmoid((v[:-1] - on) / width)
        slope += torch.sigmoid((-v[:-1] - reverse) / width)
        keep = slope.mul_(-h).add_(1)  # dv'/dv beside what goes through i'
        g_i, g_v = _integrate_back(keep, float(h), float(loss), *grads)
        g_u = g_i.unflatten(0, (-1, _SUBSTEPS)).sum(1).mul_(h * drive)
        if not any(ctx.needs_input_grad[1:]):
            return (g_u, *[None] * len(values))
        with torch.enable_grad():  # the values act in every step: one step of all steps at once
            scalars = [value.detach().requires_grad_() for value in values]
            i_next, v_next = _step(u.repeat_interleave(_SUBSTEPS, 0), i, v, *scalars)
            total = (g_i * i_next).sum() + (g_v * v_next).sum()
            return (g_u, *torch.autograd.grad(total, scalars))


def _step(
    u: Tensor,
    i: Tensor,
    v: Tensor,
    h: Tensor,
    loss: Tensor,
    drive: Tensor,
    g: Tensor,
    width: Tensor,
    on: Tensor,
    reverse: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return i', v' of every step, (steps, rows), from the states (steps + 1, rows) before."""
    before_i, before_v = i[:-1], v[:-1]

    def diodes(voltage: Tensor) -> Tensor:
        forward = nn.functional.softplus((voltage - on) / width)
        return width * (g * forward - nn.functional.softplus((-voltage - reverse) / width))

    next_i = before_i + h * (drive * u - loss * before_i - before_v)
    at_rest = diodes(torch.zeros_like(h))
    return next_i, before_v + h * (i[1:] - diodes(before_v) + at_rest)


def _integrate(
    u: Tensor,
    h: float,
    loss: float,
    drive: float,
    g: float,
    width: float,
    on: float,
    reverse: float,
) -> tuple[Tensor, Tensor]:
    """Return i and v, (steps + 1, rows), for drives u (samples, rows)."""
    samples, rows = u.shape
    i, v = u.new_zeros(2, samples * _SUBSTEPS + 1, rows)
    currents, voltages = i.unbind(0), v.unbind(0)
    pushes = (h * drive * u).unbind(0)
    scale = u.new_tensor([[1 / width], [-1 / width]])
    shift = u.new_tensor([[-on / width], [-reverse / width]])
    z = u.new_empty(2, rows)
    bends = u.new_ones(3, rows)  # softplus of both diodes, and 1 for what they draw at rest
    diodes, columns = bends[:2], bends.t()
    weights = u.new_tensor([-h * g * width, h * width, 0.0])
    weights[2] = -(weights[:2] @ nn.functional.softplus(shift[:, 0]))
    softplus: Any = torch._C._nn.softplus
    for n in range(samples * _SUBSTEPS):
        before, after = voltages[n], voltages[n + 1]
        current = currents[n + 1]
        torch.add(pushes[n // _SUBSTEPS], currents[n], alpha=1 - h * loss, out=current)
        current.add_(before, alpha=-h)
        torch.addcmul(shift, scale, before, out=z)
        softplus(z, 1.0, _THRESHOLD, out=diodes)
        torch.add(before, current, alpha=h, out=after)
        after.addmv_(columns, weights)
    return i, v


def _integrate_back(
    keep: Tensor, h: float, loss: float, g_end_i: Tensor, g_end_v: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients by i' and v' of every step, (steps, rows).

    keep (steps, rows); g_end_i, g_end_v (samples, rows): by the states at the samples' ends.
    """
    g_i, g_v = torch.empty_like(keep), torch.empty_like(keep)
    by_i, by_v, factors = g_i.unbind(0), g_v.unbind(0), keep.unbind(0)
    ends_i, ends_v = g_end_i.unbind(0), g_end_v.unbind(0)
    flow_i, flow_v = torch.zeros_like(by_i[0]), torch.zeros_like(by_v[0])
    for n in range(len(keep) - 1, -1, -1):
        if (n + 1) % _SUBSTEPS == 0:
            flow_i += ends_i[n // _SUBSTEPS]
            flow_v += ends_v[n // _SUBSTEPS]
        by_v[n].copy_(flow_v)
        torch.add(flow_i, flow_v, alpha=h, out=by_i[n])
        flow_v.mul_(factors[n]).sub_(by_i[n], alpha=h)
        torch.mul(by_i[n], 1 - h * loss, out=flow_i)
    return g_i, g_v

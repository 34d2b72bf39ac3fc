"""The gradient audit: does the twin's gradient point where the measured loss really falls?

Two-sided probes on the hardware, (l(p + c v) - l(p - c v)) / 2c, measure the true gradient's
component along a direction v: some along the twin's gradient, the rest across it. What they say
about the cosine between the two gradients stands in `lab.cosine_interval`.

The directions across are cosine waves with random signs, reflected (Householder) so that all are
orthogonal to the twin's gradient and to each other. Every entry of such a direction is about as
large as any other, so that for a given largest change of one parameter the probe is longer, and
its noise smaller, than along a normal direction; and the squares vary no more than those.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lab.cosine_interval import Components, cosine_interval

PROBES = 16
STEP = 0.05
"""Largest change of one parameter by a probe, in units of the parameter (theta: of its range).

A dozen steps of an 8-bit converter. On the simulated optics longer probes see the loss bend, and
of shorter ones noise is most of what is seen.
"""
_ALONG = 0.5  # of the step: along its gradient the loss bends more, and changes more


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    cosine: between the two gradients, -1 to 1, with its 95 % interval `low` to `high`.
    norm: of the true gradient; along: the true gradient's component along the twin's.
    probes: across the twin's gradient; evaluations: of the loss, all probes together.
    audited: single parameters that were moved; share: how much of the square of the twin's
    gradient they hold, 0 to 1.
    """

    cosine: float
    low: float
    high: float
    norm: float
    along: float
    probes: int
    evaluations: int
    audited: int
    share: float


def evaluations(probes: int = PROBES) -> int:
    """Return how often an audit evaluates the loss."""
    return 2 * (probes + _repeats(probes))


def _repeats(probes: int) -> int:
    """Return how many probes go along the twin's gradient: a quarter as many, at least two."""
    return max(2, probes // 4)


def audit_gradient(
    loss: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    *,
    physical: Sequence[nn.Parameter],
    generator: torch.Generator,
    probes: int = PROBES,
    step: float | None = None,
) -> Audit:
    """Compare the twin's gradients with the measured loss; `parameters` come back bit for bit.

    loss() measures the parameters as they stand, without recording a graph, on the same samples
    every time, and returns each sample's loss (samples,), whose mean the `gradients` (shapes of
    `parameters`) belong to: before the optimiser scales them, and without the range penalty if
    the losses come without it. The noise is taken to be independent from sample to sample; it is
    estimated from the repeated probes along the gradient.

    physical: those of the parameters that are clamped to 0..1. Their entries nearer than `step`
    to an end, or outside, are left out of the audit on both sides of the cosine: no probe crosses
    the clamp. `generator` (CPU) draws the directions. step: largest change of one entry, default
    `STEP`. Fewer probes are made where the parameters have fewer dimensions.

    Raises ValueError where shapes do not go together, a loss or gradient is not finite, the
    audited gradient is zero, or there is too little to probe (2 probes, 3 audited entries).
    """
    step = STEP if step is None else step
    if probes < 2 or not step > 0:
        raise ValueError(f"{probes} probes of step {step}: at least 2, of a step above 0")
    point = _Point(loss, parameters, physical, step)
    whole = point.flatten(gradients)
    twin = whole[point.audited]
    _check_gradient(whole, twin)
    along = twin / twin.norm()
    across = _directions_across(along, min(probes, len(twin) - 1), generator)
    try:
        seen = _probe(point, along, across, step, _repeats(probes))
    finally:
        point.restore()
    low, high = cosine_interval(seen)
    return Audit(
        cosine=seen.cosine,
        low=low,
        high=high,
        norm=seen.norm,
        along=seen.along,
        probes=len(across),
        evaluations=point.evaluations,
        audited=len(twin),
        share=float(twin.square().sum() / whole.square().sum()),
    )


def _check_gradient(whole: Tensor, twin: Tensor) -> None:
    if not whole.isfinite().all():
        raise ValueError("the twin's gradient is not finite")
    if len(twin) < 3:
        raise ValueError(
            f"only {len(twin)} of {len(whole)} parameters are further from the ends of their "
            "range than a probe's step, an audit needs 3"
        )
    if not twin.any():
        raise ValueError(f"the twin's gradient by all {len(twin)} audited parameters is zero")


class _Point:
    """The parameters that are audited, where they stand, and the loss around that point."""

    def __init__(
        self,
        loss: Callable[[], Tensor],
        parameters: Sequence[nn.Parameter],
        physical: Sequence[nn.Parameter],
        step: float,
    ) -> None:
        self.evaluations = 0
        self._loss = loss
        self._parameters = parameters
        self._saved = [p.detach().clone() for p in parameters]
        clamped = {id(p) for p in physical}
        if unknown := clamped - {id(p) for p in parameters}:
            raise ValueError(f"{len(unknown)} physical parameters are not among the audited ones")
        room = [
            torch.minimum(p, 1 - p) if id(p) in clamped else torch.full_like(p, math.inf)
            for p in parameters
        ]
        self.audited = self.flatten(room) > step

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return tensors shaped like the parameters as one vector, float64, on the CPU."""
        shapes = [tuple(p.shape) for p in self._parameters]
        if [tuple(t.shape) for t in tensors] != shapes:
            raise ValueError(f"{[tuple(t.shape) for t in tensors]} for parameters of {shapes}")
        return torch.cat([t.detach().cpu().double().reshape(-1) for t in tensors])

    @torch.no_grad()
    def losses(self, move: Tensor) -> Tensor:
        """Return the losses (samples,) with the audited entries moved, float64, on the CPU."""
        whole = torch.zeros(len(self.audited), dtype=torch.float64)
        whole[self.audited] = move
        parts = whole.split([p.numel() for p in self._parameters])
        for parameter, saved, part in zip(self._parameters, self._saved, parts, strict=True):
            parameter.copy_(saved + part.reshape(saved.shape).to(saved))
        losses = self._loss().detach().cpu().double()
        self.evaluations += 1
        if losses.dim() != 1 or not len(losses) or not losses.isfinite().all():
            raise ValueError(
                f"the loss must be finite, one number a sample, was {tuple(losses.shape)} with "
                f"{int((~losses.isfinite()).sum())} numbers not finite"
            )
        return losses

    @torch.no_grad()
    def restore(self) -> None:
        """Put every parameter back."""
        for parameter, saved in zip(self._parameters, self._saved, strict=True):
            parameter.copy_(saved)


def _probe(point: _Point, along: Tensor, across: Tensor, step: float, repeats: int) -> Components:
    """Probe `repeats` times along the twin's unit gradient and once along every row of `across`."""
    length = _ALONG * step / float(along.abs().max())
    longer = step / float(across.abs().max())
    pairs = _pairs(point, [length * along] * repeats)
    slopes = (pairs[:, 0] - pairs[:, 1]).mean(1) / (2 * length)
    others = _pairs(point, list(longer * across))
    variance, freedom = _noise(pairs)
    return Components(
        along=float(slopes.mean()),
        along_variance=variance / (2 * length**2 * repeats),
        across=((others[:, 0] - others[:, 1]).mean(1) / (2 * longer)).numpy().astype(np.float64),
        across_variance=variance / (2 * longer**2),
        dimensions=len(along) - 1,
        freedom=freedom,
    )


def _pairs(point: _Point, moves: Iterable[Tensor]) -> Tensor:
    """Return the losses on both sides, (moves, 2, samples): + and -.

    Which side comes first changes from move to move, so that a drift does not count as a slope.
    """
    pairs = []
    for i, move in enumerate(moves):
        signs = (1, -1) if i % 2 == 0 else (-1, 1)
        sides = {sign: point.losses(sign * move) for sign in signs}
        pairs.append(torch.stack([sides[1], sides[-1]]))
    return torch.stack(pairs)


def _noise(pairs: Tensor) -> tuple[float, float]:
    """Return the noise variance of a mean loss, and the estimate's degrees of freedom.

    pairs (repeats, 2, samples): the same two points again and again. Every sample has a variance
    of its own, which adds up over the samples (Satterthwaite's degrees of freedom).
    """
    repeats, _, samples = pairs.shape
    each = pairs.var(0).mean(0)
    freedom = (2 * (repeats - 1) + 2) * each.sum() ** 2 / each.square().sum()
    return float(each.sum()) / samples**2, float(freedom) if each.any() else math.inf


def _directions_across(along: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` orthonormal rows, drawn at random, orthogonal to the unit vector `along`."""
    n = len(along)
    which = 1 + torch.randperm(n - 1, generator=generator)[:count]
    signs = torch.randint(2, (n,), generator=generator).double() * 2 - 1
    angles = which[:, None] * (torch.arange(n, dtype=torch.float64) + 0.5) * torch.pi / n
    waves = signs * math.sqrt(2 / n) * angles.cos()
    first = signs / math.sqrt(n)  # completes all n - 1 waves to a basis; it is reflected on `along`
    mirror = first + math.copysign(1.0, float(first @ along)) * along
    return waves - 2 * (waves @ mirror)[:, None] * mirror / mirror.square().sum()

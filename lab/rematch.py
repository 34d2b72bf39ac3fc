"""Rematch a trained network to a device that has changed: every channel as it was.

What the rescaling stages and the read-out gave for some training samples is kept (`remember`).
Later the same samples are measured again, layer by layer, and each channel's factor and shift are
solved by least squares so that they give it again (`rematch`); no label and no gradient is used.
It corrects what a channel alone can correct (brightness, a moved zero, part of a moved axis); what
the device mixes in another way than before is left for training.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lab.models import PhysicalNetwork, Visit
from lab.stages import RescaleStage, Seen, Stage, WindowsStage

_LEAST_GAIN = 0.3  # of a read-out's gain before: no window is switched off or turned over


@torch.no_grad()
def remember(network: PhysicalNetwork, features: Tensor) -> list[Tensor]:
    """Return what every stage that can be rematched gives for features (samples, n), in order.

    Measures every sample once per pass and layer. Of a rescaling (samples, passes, channels), of
    windows (samples, classes).
    """
    kept: list[Tensor] = []

    def keep(stage: Stage, h: Tensor, seen: Seen) -> None:
        if can_rematch(stage):
            kept.append(stage(h, seen))

    _visit_all(network, features, keep)
    return kept


@torch.no_grad()
def rematch(
    network: PhysicalNetwork, features: Tensor, wanted: list[Tensor], *, ridge: float = 1e-3
) -> None:
    """Let every stage give again what it gave for these samples; `wanted` as from `remember`.

    Each layer is measured once, with the stages before it rematched already. ridge: a prior for
    the factor that a channel has, as variance of its input; it keeps channels that hardly move.
    Raises ValueError where `wanted` is not of this network and these samples, before measuring.
    """
    stages = [s for s in network.modules() if isinstance(s, Stage) and can_rematch(s)]
    if len(stages) != len(wanted) or any(len(w) != len(features) for w in wanted):
        raise ValueError(
            f"{len(wanted)} outputs of {[len(w) for w in wanted]} samples to rematch "
            f"{len(stages)} stages to with {len(features)} samples"
        )
    goals = iter(wanted)

    def solve(stage: Stage, h: Tensor, seen: Seen) -> None:
        if isinstance(stage, RescaleStage) and stage.shift is not None:
            goal = next(goals)
            factor = _slope(h, goal, stage.scale, ridge)
            stage.scale.copy_(factor)
            stage.shift.copy_(goal.mean(0) - factor * h.mean(0))
        elif isinstance(stage, WindowsStage) and stage.offset is None:
            _rematch_windows(stage, h, next(goals), ridge)

    _visit_all(network, features, solve)


def can_rematch(stage: Stage) -> bool:
    """Say whether a stage has a factor and a shift for each channel, or plain windows."""
    if isinstance(stage, RescaleStage):
        return stage.shift is not None
    return isinstance(stage, WindowsStage) and stage.offset is None


def _rematch_windows(stage: WindowsStage, h: Tensor, goal: Tensor, ridge: float) -> None:
    means = stage.means(h)
    before = stage.gain / stage.deviation
    slope = _slope(means, goal, before, ridge)
    slope = torch.where(slope / before < _LEAST_GAIN, _LEAST_GAIN * before, slope)
    stage.deviation.copy_(stage.gain / slope)
    stage.mean.copy_(means.mean(0) - goal.mean(0) / slope)


def _slope(h: Tensor, goal: Tensor, before: Tensor, ridge: float) -> Tensor:
    """Return the least-squares factor from h to goal (samples, ...), drawn towards `before`."""
    d = h - h.mean(0)
    covariance = (d * (goal - goal.mean(0))).mean(0)
    return (covariance + ridge * before) / (d.square().mean(0) + ridge)


def _visit_all(
    network: PhysicalNetwork, features: Tensor, visit: Callable[[Stage, Tensor, Seen], None]
) -> None:
    act: Visit = visit
    h = encoded = network.encode(features)
    for block in network.blocks:
        h = block(h, encoded, act)

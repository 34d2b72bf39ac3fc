"""Audits of the twin's gradient during a training run."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lab.audit import Audit, audit_gradient, evaluations
from lab.audit_watch import SHARE, AuditWatch
from lab.config import TrainConfig
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork
from lab.pipeline import replica

AUDITED_METHODS = ("pat", "pat-refit", "pat-sharpness")
SAMPLES = 25  # of an audit: a quarter of a usual batch, so that audits come four times as often


@dataclass(frozen=True)
class AuditPoint:
    """An audit after `step` training steps: the cosine with its 95 % interval; see `lab.audit`.

    share: how much of the square of the twin's gradient was audited; refit: whether the twin was
    refitted because of it.
    """

    step: int
    cosine: float
    low: float
    high: float
    share: float
    refit: bool


def audit_every(config: TrainConfig) -> int | None:
    """Return the steps between audits, None where a run has none."""
    if not config.audit or config.method not in AUDITED_METHODS or config.control is not None:
        return None
    return math.ceil(rows_of_audit(config) / (SHARE * config.batch * config.rows_a_sample))


def rows_of_audit(config: TrainConfig) -> int:
    """Return the hardware rows of one audit: its probes, and once for the twin's gradient."""
    return (evaluations() + 1) * min(SAMPLES, config.batch) * config.rows_a_sample


class Auditor:
    """Audit a network's gradients on training samples, with a device of its own stream."""

    def __init__(
        self,
        config: TrainConfig,
        features: Tensor,
        labels: Tensor,
        rows: Tensor,
        every: int,
    ) -> None:
        """Draw from the training samples `rows` (their numbers)."""
        self._watch = AuditWatch(every)
        self._features, self._labels, self._rows = features, labels, rows
        self._samples = min(SAMPLES, config.batch)
        self._generator = torch.Generator().manual_seed(config.seed)
        self.points: list[AuditPoint] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the audits, the last one's verdict and the generator's state."""
        return {
            "points": [asdict(point) for point in self.points],
            "low": self._watch.low,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.points = [AuditPoint(**point) for point in state["points"]]
        self._watch.low = state["low"]
        self._generator.set_state(state["generator"])

    def due(self, step: int) -> bool:
        """Say whether an audit is due after so many steps."""
        return self._watch.due(step)

    def audit(
        self,
        step: int,
        network: PhysicalNetwork,
        device: DeviceMeasure,
        refit: Callable[[], object] | None,
    ) -> AuditPoint:
        """Audit now; let `refit` run if the twin's gradient has become too bad for it."""
        pick = torch.randperm(len(self._rows), generator=self._generator)[: self._samples]
        found = self._compare(network, device, self._rows[pick])
        wanted = self._watch.asks_for_refit(found) and refit is not None
        if wanted and refit is not None:
            refit()
        point = AuditPoint(step, found.cosine, found.low, found.high, found.share, wanted)
        self.points.append(point)
        return point

    def _compare(self, network: PhysicalNetwork, device: DeviceMeasure, rows: Tensor) -> Audit:
        own = replica(network)  # the same parameters, measured on another stream
        own.set_measure(device)
        features, labels = self._features[rows], self._labels[rows]
        parameters = [p for p in own.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(
            nn.functional.cross_entropy(own(features), labels), parameters, allow_unused=True
        )

        @torch.no_grad()
        def losses() -> Tensor:
            return nn.functional.cross_entropy(own(features), labels, reduction="none")

        return audit_gradient(
            losses,
            parameters,
            [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(parameters, gradients, strict=True)
            ],
            physical=[p for p in own.physical_parameters() if p.requires_grad],
            generator=self._generator,
        )

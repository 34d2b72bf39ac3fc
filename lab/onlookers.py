"""What looks on while a network trains: checks, audits, sentinels, on streams of their own.

None of them changes what is trained; an audit may have a bad twin refitted.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lab.apparatus import Apparatus
from lab.auditing import Auditor, AuditPoint, audit_every
from lab.config import TrainConfig
from lab.datasets import Split
from lab.evaluation import accuracy
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork
from lab.pat import Measure
from lab.pipeline import replica
from lab.refit import OnlineRefit
from lab.train_result import Check
from lab.watching import DriftPoint, DriftWatch, look_every
from twins.base import DigitalTwin

_CHECK_STREAM = 1 << 41  # noise streams apart from those of the training
_AUDIT_STREAM = 1 << 42
_SENTINEL_STREAM = 1 << 43

Event = AuditPoint | DriftPoint


class Onlookers:
    """Look on after every step of a run but the last; see `Check`, `AuditPoint`, `DriftPoint`.

    rows: hardware rows measured so far, by what they were for.
    """

    def __init__(
        self,
        config: TrainConfig,
        apparatus: Apparatus,
        device: DeviceMeasure,
        twin: DigitalTwin,
        *,
        steps: int,
        refit: OnlineRefit | None,
        features: Tensor,
        labels: Tensor,
        split: Split,
        tested_by: Callable[[DeviceMeasure], Measure],
        on_event: Callable[[Event], None] | None,
    ) -> None:
        """Look at a training on `device`, of `steps` steps; tested_by: what checks measure with."""
        self.rows: dict[str, int] = {}
        self.checks: list[Check] = []
        self._config, self._apparatus, self._device = config, apparatus, device
        self._steps, self._refit = steps, refit
        self._features, self._labels, self._split = features, labels, split
        self._tested_by, self._tell = tested_by, on_event or _nobody
        every, looks = audit_every(config), look_every(config)
        self._auditor = self._watch = None
        if every is not None:
            rows = torch.from_numpy(split.train_idx)
            self._auditor = Auditor(config, features, labels, rows, every)
        if looks is not None:
            self._watch = DriftWatch(twin, looks, partial(self._open, _SENTINEL_STREAM))

    @property
    def audits(self) -> list[AuditPoint]:
        """Get the audits so far."""
        return [] if self._auditor is None else self._auditor.points

    @property
    def drifts(self) -> list[DriftPoint]:
        """Get the changes of the device that were seen so far."""
        return [] if self._watch is None else self._watch.points

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen and what is compared with; see `lab.stateful`."""
        return {
            "rows": self.rows,
            "checks": [asdict(check) for check in self.checks],
            "auditor": None if self._auditor is None else self._auditor.state_dict(),
            "watch": None if self._watch is None else self._watch.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.rows = dict(state["rows"])
        self.checks = [Check(**check) for check in state["checks"]]
        if self._auditor is not None:
            self._auditor.load_state_dict(state["auditor"])
        if self._watch is not None:
            self._watch.load_state_dict(state["watch"])

    def after(self, step: int, network: PhysicalNetwork) -> None:
        """Do what is due after a step of training the network."""
        checks = self._config.checks
        if step * checks // self._steps != (step - 1) * checks // self._steps:
            self._check(step, network)
        if step == self._steps:
            return
        if self._auditor is not None and self._auditor.due(step):
            self._audit(self._auditor, step, network)
        if self._watch is not None:
            drift = self._watch.after(step)
            self.rows["sentinels"] = self._watch.rows
            if drift is not None:
                self._tell(drift)

    def _check(self, step: int, network: PhysicalNetwork) -> None:
        """Measure the accuracy on the validation rows."""
        rows, seen = self._split.validation_idx, self.rows.get("checks", 0)
        tester = self._open(_CHECK_STREAM, seen)
        own = replica(network)
        own.set_measure(self._tested_by(tester))
        checked = accuracy(own, self._features[rows], self._labels[rows])
        self.rows["checks"] = seen + tester.rows
        self.checks.append(Check(step, self._device.rows, checked))

    def _audit(self, auditor: Auditor, step: int, network: PhysicalNetwork) -> None:
        seen = self.rows.get("audits", 0)
        device = self._open(_AUDIT_STREAM, seen)
        refit = None if self._refit is None else self._refit.catch_up
        self._tell(auditor.audit(step, network, device, refit))
        self.rows["audits"] = seen + device.rows

    def _open(self, stream: int, seen: int) -> DeviceMeasure:
        """Open the device on another noise stream, from row `seen` on, at its age in training."""
        device = self._apparatus.open_device(stream + self._config.seed, seen)
        device.wait(max(0.0, self._device.time_s - device.time_s))
        return device


def _nobody(event: Event) -> None:
    """Tell nobody."""

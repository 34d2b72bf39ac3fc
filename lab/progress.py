"""How far a training is: its learning curve, its ledger of rows and its clock."""

import time
from dataclasses import asdict
from typing import Any

from lab.rules.base import Sums
from lab.train_result import EpochMetric


class Progress:
    """What a training has told so far, and what it will tell next.

    ledger: hardware rows by what they were for.
    """

    def __init__(self, ledger: dict[str, int]) -> None:
        """Start the clock."""
        self.curve: list[EpochMetric] = []
        self.ledger = ledger
        self._sums: list[Sums] = []
        self._samples = 0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Get the time since the run began, without the time between a stop and its going on."""
        return time.perf_counter() - self._start

    def saw(self, sums: list[Sums], samples: int) -> None:
        """Take in one step's sums."""
        self._sums += sums
        self._samples += samples

    def report(self, **counts: int) -> EpochMetric:
        """Return a point of the learning curve over the steps since the last one."""
        metric = EpochMetric(
            loss=sum(s.loss for s in self._sums) / self._samples,
            accuracy=sum(s.correct for s in self._sums) / self._samples,
            penalty=sum(s.penalty for s in self._sums) / self._samples,
            seconds=self.seconds,
            **counts,
        )
        self.curve.append(metric)
        self._sums, self._samples = [], 0
        return metric

    def state_dict(self) -> dict[str, Any]:
        """Return all of it; see `lab.stateful`."""
        return {
            "curve": [asdict(metric) for metric in self.curve],
            "ledger": self.ledger,
            "sums": [asdict(sums) for sums in self._sums],
            "samples": self._samples,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.curve = [EpochMetric(**metric) for metric in state["curve"]]
        self.ledger = dict(state["ledger"])
        self._sums = [Sums(**sums) for sums in state["sums"]]
        self._samples = state["samples"]
        self._start = time.perf_counter() - state["seconds"]

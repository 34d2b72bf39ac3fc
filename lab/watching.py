"""Drift sentinels during a training run: a change of the device is told, not hidden."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from lab.config import TrainConfig
from lab.measure import DeviceMeasure
from lab.sentinels import DriftEvent, Sentinels, SentinelSettings, reference_rows
from twins.base import DigitalTwin, frozen

WATCHED_METHODS = ("pat", "pat-refit", "pat-sharpness", "ideal")
ROWS = 8  # of a look
SHARE = 0.01  # of the rows of training, at most
LEAST_STEPS = 10  # between looks: where a step has thousands of rows, a look costs time, not rows
_SEED = 0  # the same rows in every run
_SETTINGS = SentinelSettings()
ARMING_ROWS = (1 + _SETTINGS.looks) * ROWS


@dataclass(frozen=True)
class DriftPoint:
    """A change that the sentinels showed after `step` steps; see `lab.sentinels.DriftEvent`."""

    step: int
    statistic: str
    value: float
    looks: int
    time_s: float


def look_every(config: TrainConfig) -> int | None:
    """Return the steps between looks, None where a run has none."""
    if not config.sentinels or config.method not in WATCHED_METHODS or config.control is not None:
        return None
    by_rows = math.ceil(ROWS / (SHARE * config.batch * config.rows_a_sample))
    return max(LEAST_STEPS, by_rows)


def rows_of_watch(config: TrainConfig, steps: int) -> tuple[int, int]:
    """Return the sentinels' rows in a training of so many steps: without an event, and at most."""
    every = look_every(config)
    looks = 0 if every is None else (steps - 1) // every
    if looks == 0:
        return 0, 0
    return ARMING_ROWS + (looks - 1) * ROWS, ARMING_ROWS + (looks - 1) * (ROWS + ARMING_ROWS)


class DriftWatch:
    """Let sentinels look every so many steps, on a noise stream of their own.

    They compare with the twin as it was when they were armed: a twin that learns in training is no
    sign of drift. After an event they are armed anew, so that a lasting drift is told again.
    """

    def __init__(
        self, twin: DigitalTwin, every: int, open_device: Callable[[int], DeviceMeasure]
    ) -> None:
        """open_device(row) opens the device from a row of the sentinels' stream on, at its age."""
        self._twin = twin
        self._every = every
        self._open = open_device
        self._sentinels: Sentinels | None = None
        self._armed_with = twin
        self.rows = 0
        self.points: list[DriftPoint] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the changes seen, and the sentinels with the twin that they compare with."""
        sentinels = None if self._sentinels is None else self._sentinels.state_dict()
        return {
            "rows": self.rows,
            "points": [asdict(point) for point in self.points],
            "sentinels": sentinels,
            "twin": self._armed_with.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; nothing is measured."""
        self.rows = state["rows"]
        self.points = [DriftPoint(**point) for point in state["points"]]
        if state["sentinels"] is not None:
            self._sentinels = self._new_sentinels()
            self._sentinels.load_state_dict(state["sentinels"])
            self._armed_with.load_state_dict(state["twin"])

    def after(self, step: int) -> DriftPoint | None:
        """Look if it is time; return what a look has shown."""
        if step % self._every:
            return None
        if self._sentinels is None:
            self._arm()
            return None
        event = self._sentinels.look()
        if event is None:
            return None
        point = _point(step, event)
        self.points.append(point)
        self._arm()
        return point

    def _arm(self) -> None:
        self._sentinels = self._new_sentinels()
        self._sentinels.arm()

    def _new_sentinels(self) -> Sentinels:
        """Return sentinels that compare with a copy of the twin as it is."""
        device = self._open(self.rows)
        self._armed_with = frozen(deepcopy(self._twin))
        return Sentinels(
            self._measure,
            self._armed_with,
            reference_rows(device.description, ROWS, seed=_SEED),
            clock=lambda: self._open(self.rows).time_s,
            settings=_SETTINGS,
        )

    def _measure(self, x: Tensor, theta: Tensor) -> Tensor:
        y = self._open(self.rows)(x, theta)
        self.rows += len(x)
        return y


def _point(step: int, event: DriftEvent) -> DriftPoint:
    return DriftPoint(step, event.statistic, event.value, event.looks, event.time_s)

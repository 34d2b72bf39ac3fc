"""Drift sentinels: the same few rows, measured again and again, show when a device changes.

Two series of every look are watched by a CUSUM (`lab.cusum`): the twin's normalised error on the
rows, and the normalised distance of the measurement from the first one. The second sees any change
of the device, the first those that spoil gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lab.cusum import Cusum
from lab.drives import random_drives
from lab.pat import Measure
from lab.systems.base import SystemDescription

TWIN_ERROR = "twin error"
DISTANCE = "distance"


@dataclass(frozen=True)
class SentinelSettings:
    """When a change is reported.

    looks: reference looks that set mean and spread, at least 2; slack, limit: of the CUSUM, in
    standard deviations. As they stand ARL0 is 1e9 looks where mean and spread are known; with those
    of 20 looks a false alarm comes within 200 looks in 1 % of a series' cases (see `Cusum`).
    """

    looks: int = 20
    slack: float = 1.0
    limit: float = 10.0


@dataclass(frozen=True)
class DriftEvent:
    """A device has changed.

    statistic: the series that shows it, TWIN_ERROR or DISTANCE. value: its CUSUM's sum, in standard
    deviations. looks: since the last arming. rows: measured by these sentinels so far. time_s: what
    the clock said.
    """

    statistic: str
    value: float
    looks: int
    rows: int
    time_s: float


def reference_rows(
    description: SystemDescription,
    rows: int,
    *,
    seed: int,
    task: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return x (n, x_size) and theta (n, theta_size), 0..1: random drives, then rows of a task."""
    x, theta = random_drives(description, rows, seed=seed)
    if task is None:
        return x, theta
    return torch.cat([x, task[0].to(x)]), torch.cat([theta, task[1].to(theta)])


class Sentinels:
    """Measure fixed rows and say when device, or twin, is no longer what it was at `arm`.

    They do not know why: a slow drift within the device's specification is one too.
    """

    def __init__(
        self,
        measure: Measure,
        twin: nn.Module,
        rows: tuple[Tensor, Tensor],
        *,
        clock: Callable[[], float],
        read: Callable[[Tensor], Tensor] = lambda y: y,
        settings: SentinelSettings | None = None,
    ) -> None:
        """Watch with rows of x (n, x_size) and theta (n, theta_size); nothing is measured yet.

        clock: the time of an event, s. read: what is compared, of y (n, y_size); for instance
        `lab.stages.brightness_free`, where the pulse energy is of no interest.
        """
        self.settings = settings or SentinelSettings()
        self.rows = 0
        self._measure = measure
        self._twin = twin
        self._x, self._theta = rows
        self._clock = clock
        self._read = read
        self._first: Tensor | None = None
        self._charts: dict[str, Cusum] = {}
        self._looks = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the reference and the sums; see `lab.stateful`."""
        charts = {name: chart.state_dict() for name, chart in self._charts.items()}
        return {"first": self._first, "charts": charts, "looks": self._looks, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on comparing with that reference."""
        s = self.settings
        self._first, self._looks, self.rows = state["first"], state["looks"], state["rows"]
        self._charts = {
            name: Cusum.going_on(chart, slack=s.slack, limit=s.limit)
            for name, chart in state["charts"].items()
        }

    @torch.no_grad()
    def arm(self) -> None:
        """Take a new reference: 1 + `looks` looks at once, of the device and the twin as they are.

        Raises what measuring raises, ValueError where the looks do not differ (no noise).
        """
        self._first = self._measured()
        looks = [
            self._statistics(self._measured(), self._first) for _ in range(self.settings.looks)
        ]
        s = self.settings
        self._charts = {
            name: Cusum([look[name] for look in looks], slack=s.slack, limit=s.limit)
            for name in (TWIN_ERROR, DISTANCE)
        }
        self._looks = 0

    @torch.no_grad()
    def look(self) -> DriftEvent | None:
        """Measure the rows once; return the event, until armed anew, while a change shows.

        Raises RuntimeError before the first arming, and what measuring raises.
        """
        if self._first is None:
            raise RuntimeError("sentinels without a reference: call arm() first")
        found = self._statistics(self._measured(), self._first)
        self._looks += 1
        shown = [name for name, chart in self._charts.items() if chart.add(found[name])]
        if not shown:
            return None
        statistic = max(shown, key=lambda name: self._charts[name].sum)
        value = self._charts[statistic].sum
        return DriftEvent(statistic, value, self._looks, self.rows, self._clock())

    def _measured(self) -> Tensor:
        self.rows += len(self._x)
        return self._read(self._measure(self._x, self._theta))

    def _statistics(self, y: Tensor, first: Tensor) -> dict[str, float]:
        predicted = self._read(self._twin(self._x, self._theta))
        return {TWIN_ERROR: _relative(predicted, y), DISTANCE: _relative(y, first)}


def _relative(y: Tensor, to: Tensor) -> float:
    """Return the rms of the difference over the rms of `to`."""
    return float((y - to).square().mean().sqrt() / to.square().mean().sqrt())

"""A CUSUM chart: has the mean of a series of numbers changed?

E. S. Page, "Continuous inspection schemes", Biometrika 41, 100 (1954). Two-sided: with z the value
standardised by the mean and spread of reference values,
up = max(0, up + z - slack), down = max(0, down - z - slack); a change is reported above `limit`.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev


class Cusum:
    """Watch a series for a change of its mean, upwards or downwards.

    slack: half the shift, in standard deviations, that is to be found quickest; limit: the sum, in
    standard deviations, that counts as a change. Where nothing changes and mean and spread are
    known, a false alarm comes after 1.2e9 values on average, with slack 1 and limit 10 (Siegmund,
    Sequential Analysis, 1985). From few reference values they are not known, and false alarms are
    more frequent: one comes within 200 values in 1 % of series with 20 reference values (slack 1,
    limit 5: 12 %), by simulation.
    """

    def __init__(
        self, reference: Sequence[float], *, slack: float = 1.0, limit: float = 10.0
    ) -> None:
        """Standardise by `reference`, the series while nothing changes, at least two values.

        Raises ValueError for fewer, for values that are not finite or do not differ, and for a
        slack below 0 or a limit not above 0.
        """
        if len(reference) < 2 or not all(map(math.isfinite, reference)):
            raise ValueError(f"a CUSUM needs 2 or more finite reference values, not {reference}")
        if not (slack >= 0 and limit > 0):
            raise ValueError(f"CUSUM slack {slack} must be at least 0 and limit {limit} above 0")
        self.mean, self.spread = fmean(reference), stdev(reference)
        if self.spread == 0:
            raise ValueError("a CUSUM's reference values do not differ: no spread to compare with")
        self.slack, self.limit = slack, limit
        self.up = self.down = 0.0

    def state_dict(self) -> dict[str, float]:
        """Return what it standardises by, and its sums."""
        return {"mean": self.mean, "spread": self.spread, "up": self.up, "down": self.down}

    @classmethod
    def going_on(cls, state: dict[str, float], *, slack: float, limit: float) -> "Cusum":
        """Return a chart that goes on from a state."""
        chart = cls([0.0, 1.0], slack=slack, limit=limit)
        chart.mean, chart.spread = state["mean"], state["spread"]
        chart.up, chart.down = state["up"], state["down"]
        return chart

    def add(self, value: float) -> bool:
        """Take the next value and say whether the sums show a change; ValueError if not finite."""
        if not math.isfinite(value):
            raise ValueError(f"a CUSUM cannot add {value}: not finite")
        z = (value - self.mean) / self.spread
        self.up = max(0.0, self.up + z - self.slack)
        self.down = max(0.0, self.down - z - self.slack)
        return self.sum > self.limit

    @property
    def sum(self) -> float:
        """Get the larger of the two sums, standard deviations."""
        return max(self.up, self.down)

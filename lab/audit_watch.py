"""When to audit the twin's gradient in training, and when an audit asks for a refit of the twin."""

from dataclasses import dataclass, field

from lab.audit import Audit

SHARE = 0.02
"""Of the rows of training, what audits may measure beside them."""
THRESHOLD = 0.5
"""A cosine below which the twin is to be refitted: the gradient is off by more than 60 degrees."""


@dataclass
class AuditWatch:
    """Say when to audit (`due`) and whether to refit the twin (`asks_for_refit`).

    every: steps between audits. A refit is asked for when an audit's whole interval lies below
    `threshold`, or when the estimate does in two audits running: one alone may be chance. After
    that the count starts anew. low: whether the last estimate counts as the first of two.
    """

    every: int
    threshold: float = THRESHOLD
    low: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for settings out of range."""
        if self.every < 1 or not -1 <= self.threshold <= 1:
            raise ValueError(
                f"audits every {self.every} steps below a cosine of {self.threshold:g}: the steps "
                "must be at least 1, the cosine from -1 to 1"
            )

    def due(self, step: int) -> bool:
        """Say whether to audit after so many steps: every `every`, not before the first."""
        return step > 0 and step % self.every == 0

    def asks_for_refit(self, audit: Audit) -> bool:
        """Note an audit and say whether the twin is to be refitted now."""
        low = audit.cosine < self.threshold
        refit = audit.high < self.threshold or (low and self.low)
        self.low = low and not refit
        return refit

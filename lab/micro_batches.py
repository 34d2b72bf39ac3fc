"""Into how many micro-batches a training step is split: measured, then chosen.

A step of L calls takes h + M L c + d / M seconds when it is split into M parts: h the hardware's
time for the rows, c what a call costs beyond them (wire, queue, threads), d the digital work, of
which all but one part's hides behind the other parts' measurements. That is rough: part
of the digital work every part does again, part of c hides too, and the cores have other work. So
the prediction says whether to split at all, and the steps' own times how far.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from lab.pat import Measure

NUMBERS = (1, 2, 4, 8, 16)
_WORTH = 0.98  # of the unsplit step's time: what is predicted above that is not tried
_STEPS = 2  # that are timed with each number
_WAITED_FOR = 0.5  # of the declared time of a row


@dataclass(frozen=True)
class StepCost:
    """What an unsplit step of `calls` measurements costs, in seconds; see the module."""

    hardware_s: float
    calls: int
    per_call_s: float
    digital_s: float

    def predicted_s(self, parts: int) -> float:
        """Return the time of a step that is split into `parts`."""
        return self.hardware_s + parts * self.calls * self.per_call_s + self.digital_s / parts


def choose(cost: StepCost, most: int) -> int:
    """Return the number of parts, at most `most`, that is predicted to be quickest.

    1 unless a split saves 2 % of the step; whether it does, the steps themselves then show.
    """
    best = min((n for n in NUMBERS if n <= most), key=cost.predicted_s)
    return best if cost.predicted_s(best) <= _WORTH * cost.predicted_s(1) else 1


class AutoMicroBatches:
    """Choose the number of parts from the first steps of a run; `number` is 1 until then.

    decided: whether it has been chosen.

    Two unsplit steps are timed; then, if a split promises to be quicker, two with each of 2, 4, 8
    and 16 for as long as the step gets quicker; the quickest number stays. Only steps as large as
    the first count, and of two the quicker one. Where a row takes less than half of its declared
    time it is computed here instead of waited for: nothing can hide behind it, and 1 keeps runs on
    a simulated bench repeatable bit for bit.
    """

    def __init__(
        self,
        hardware_s: Callable[[], float],
        row_time_s: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Expect rows of `row_time_s` (0: not declared), in seconds of `clock`.

        hardware_s: returns the time that the hardware has spent on calls so far.
        """
        self.number = 1
        self._hardware_s = hardware_s
        self._row_time_s = row_time_s
        self._clock = clock
        self._calls: list[tuple[int, float]] = []  # of the present step: rows, s
        self._samples = 0
        self._costs: list[tuple[float, StepCost]] = []  # of the unsplit steps, with their times
        self._row_s: list[float] = []  # time of a row in each of them
        self._steps_s: dict[int, list[float]] = {}  # number -> the times of its steps
        self._most = 1
        self._known = False  # whether rows of the present step, or all of the last one, were known
        self.decided = False

    def decide(self, number: int) -> None:
        """Take a number of parts that was chosen before."""
        self.number, self.decided = number, True

    def timed(self, measure: Measure) -> Measure:
        """Return `measure` with its calls timed, for unsplit steps."""

        def timed(x: Tensor, theta: Tensor) -> Tensor:
            if self.decided:
                return measure(x, theta)
            start, hardware_s = self._clock(), self._hardware_s()
            y = measure(x, theta)
            self._calls.append((len(x), self._clock() - start))
            self._known = self._known or self._hardware_s() == hardware_s
            return y

        return timed

    @contextmanager
    def timing(self, samples: int) -> Iterator[None]:
        """Time one step of so many samples, with `number` parts."""
        self._calls.clear()
        start, hardware_s = self._clock(), self._hardware_s()
        yield
        if not self.decided:
            self._note(samples, self._clock() - start, self._hardware_s() - hardware_s)

    def _note(self, samples: int, seconds: float, hardware_s: float) -> None:
        self._samples = self._samples or samples
        if samples != self._samples:
            return
        if hardware_s == 0 and (self._calls or self.number > 1):
            self._known = True  # its rows, from before the training was broken off
            return
        if self._known:  # and some of this one's, maybe
            self._known = False
            return
        if self.number == 1:
            if not self._calls:
                self.decided = True  # nothing is measured
                return
            self._costs.append((seconds, self._cost(seconds, hardware_s)))
            self._row_s.append(hardware_s / sum(rows for rows, _ in self._calls))
        times_s = self._steps_s.setdefault(self.number, [])
        times_s.append(seconds)
        if len(times_s) == _STEPS:
            self._go_on()

    def _go_on(self) -> None:
        """Try twice as many parts, or stay, or go back to half as many and stay."""
        if self.number == 1:
            self._most = self._most_to_try()
        elif min(self._steps_s[self.number]) >= min(self._steps_s[self.number // 2]):
            self.number //= 2
            self._most = self.number
        if self.number < self._most:
            self.number *= 2
        else:
            self.decided = True

    def _most_to_try(self) -> int:
        if min(self._row_s) < _WAITED_FOR * self._row_time_s:
            return 1
        if choose(min(self._costs, key=lambda step: step[0])[1], self._samples) == 1:
            return 1
        return max(n for n in NUMBERS if n <= self._samples)

    def _cost(self, seconds: float, hardware_s: float) -> StepCost:
        """Return what the present step, which took so many seconds, consists of."""
        calls_s = sum(s for _, s in self._calls)
        return StepCost(
            hardware_s=hardware_s,
            calls=len(self._calls),
            per_call_s=max(0.0, calls_s - hardware_s) / len(self._calls),
            digital_s=seconds - calls_s,
        )

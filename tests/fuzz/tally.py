"""What is counted of each entry: rows asked for, refused, sent, out of limits at the far end."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drivers.errors import LimitError
from limited_benches import FarEnds, Verdict


@dataclass
class Tally:
    """Rows of one entry; bad: that have to be refused; batches go out whole or not at all.

    wrong: what must not happen, besides what the far ends count.
    """

    name: str
    rows: int = 0
    bad: int = 0
    refused: int = 0
    sent: int = 0
    out_of_limits: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return self.out_of_limits > 0 or bool(self.wrong)


class Fuzz:
    """One entry's run: its random numbers, the far ends that it reaches, its tally."""

    def __init__(self, name: str, rows: int, seed: int, far: FarEnds) -> None:
        self.rng = np.random.default_rng([seed, *name.encode()])
        self.tally = Tally(name)
        self.far = far
        self._most = rows

    def goes_on(self, share: float = 1.0) -> bool:
        """Say whether rows are left to ask for, of a share of all."""
        return self.tally.rows < share * self._most

    @property
    def left(self) -> int:
        return self._most - self.tally.rows

    @contextmanager
    def asked(self, verdict: Verdict) -> Iterator[None]:
        """Ask for rows of these verdicts; a LimitError raised within is what refuses them."""
        uses, out = self.far.uses, self.far.out_of_limits
        refused = False
        try:
            yield
        except LimitError:
            refused = True
            raise
        finally:
            self._record(verdict, refused, self.far.uses - uses)
            self.tally.out_of_limits += self.far.out_of_limits - out

    def ask(self, verdict: Verdict, call: Callable[[], Any]) -> None:
        """Do as `asked`, and go on after a refusal; another error must not happen."""
        before = self.tally.rows
        try:
            with suppress(LimitError), self.asked(verdict):
                call()
        except Exception as error:
            if self.tally.rows == before:  # not a row's: the fuzz itself is wrong
                raise
            self.tally.wrong.append(f"{self.tally.name}: {type(error).__name__}: {error}")

    @contextmanager
    def checked(self, verdict: Verdict) -> Iterator[None]:
        """Do as `asked` for rows that are sent later: what has arrived is counted by `settle`."""
        refused = False
        try:
            yield
        except LimitError:
            refused = True
            raise
        finally:
            self._record(verdict, refused, 0)

    def settle(self) -> None:
        """Count what has arrived out of limits, and forget the far ends."""
        self.tally.out_of_limits += self.far.out_of_limits
        self.far.forget()

    def _record(self, verdict: Verdict, refused: bool, uses: int) -> None:
        t, number = self.tally, self.tally.rows
        t.rows += len(verdict)
        t.bad += int((verdict == 1).sum())
        if refused:
            t.refused += len(verdict)
        else:
            t.sent += len(verdict)
        where = f"{t.name}, {len(verdict)} rows from row {number}"
        if refused and uses:
            t.wrong.append(f"{where}: refused after {uses} waveforms or profiles had been sent")
        if refused and (verdict == 0).all():
            t.wrong.append(f"{where}: refused, though within all limits")
        if not refused and (verdict == 1).any():
            t.wrong.append(f"{where}: sent, though out of limits")


class Refusals(logging.Handler):
    """Count the refusals that are logged, instead of showing them."""

    def __init__(self) -> None:
        super().__init__()
        self.logged = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.logged += 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take what the limits' logger says."""
        logger = logging.getLogger("drivers.limits")
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = propagate

"""The passes that a system has accepted and that wait: who is let in, and who is next.

Two orders beside each other: the passes of the present reservation, and all others, which wait
while there is one. Nothing here knows of hardware; times are monotonic seconds.
"""

import time
from collections.abc import Sequence

import numpy as np

from lab.bench_config import SchedulerConfig
from lab.errors import DeadlineMissed, QueueFull
from lab.measurement import ForwardPass
from lab.scheduling.reservations import Reservations
from lab.scheduling.ticket import AnyOutcome, Ticket
from lab.scheduling.waiting import WaitingPasses

_RETRY_S = (1.0, 60.0)


class PassQueue:
    """The tickets that wait in front of one system."""

    def __init__(self, system: str, config: SchedulerConfig) -> None:
        """Start empty, with no reservation."""
        self.reservations = Reservations(system)
        self._system, self._config = system, config
        self._open = WaitingPasses(config.longest_wait_s, config.weights)
        self._reserved = WaitingPasses(config.longest_wait_s, config.weights)
        self._numbers = 0

    def __len__(self) -> int:
        """Return how many passes wait, with and without reservation."""
        return len(self._open) + len(self._reserved)

    @property
    def rows(self) -> int:
        """Get the rows of all that wait."""
        return self._open.rows + self._reserved.rows

    @property
    def next_rows(self) -> int:
        """Get the rows of those whose turn can come now."""
        return self._served().rows

    def tickets(self) -> list[Ticket]:
        """Return all that wait: those that are served now first."""
        served = self._served()
        other = self._open if served is self._reserved else self._reserved
        return served.tickets() + other.tickets()

    def refuse(
        self, forward_pass: ForwardPass, row_time_s: float, running: Sequence[Ticket] = ()
    ) -> None:
        """Raise why this pass is not let in, if it is not; what is running takes no place.

        DeadlineMissed; ReservationLost, UnknownName (its reservation); QueueFull.
        """
        p = forward_pass
        if p.deadline_s is not None and p.deadline_s <= time.time():
            raise DeadlineMissed(f"pass on {self._system}: its deadline has passed")
        if p.reservation is not None:
            self.reservations.check(p.reservation)
        self._refuse_when_full(p, row_time_s, [t for t in running if self.waits(t)])

    def _refuse_when_full(
        self, p: ForwardPass, row_time_s: float, partly: Sequence[Ticket]
    ) -> None:
        # those under a reservation and the others do not take each other's places
        config, queue = self._config, self._open if p.reservation is None else self._reserved
        rows = len(np.atleast_1d(p.x))  # not checked yet
        mine = self._open.of_client[p.client] + self._reserved.of_client[p.client]
        mine -= sum(t.forward_pass.client == p.client for t in partly)
        passes = len(queue) - sum(self._of(t) is queue for t in partly)
        if mine >= config.max_waiting_per_client:
            full = f"{mine} passes of {p.client} wait, the most that a client may have"
        elif passes >= config.max_waiting:
            full = f"{passes} passes wait, the most that may"
        elif queue.rows and queue.rows + rows > config.max_waiting_rows:
            full = f"{queue.rows} rows wait, and {rows} more are over {config.max_waiting_rows}"
        else:
            return
        pass_s = row_time_s * queue.rows / max(1, len(queue))
        raise QueueFull(f"{self._system}: {full}", min(max(pass_s, _RETRY_S[0]), _RETRY_S[1]))

    def put(
        self, forward_pass: ForwardPass, now: float, outcome: AnyOutcome | None = None
    ) -> Ticket:
        """Queue a pass that was not refused."""
        self._numbers += 1
        ticket = Ticket(forward_pass, self._numbers, outcome)
        if ticket.rows > 0:
            self._of(ticket).add(ticket, now)
        return ticket

    def put_back(self, ticket: Ticket, now: float) -> None:
        """Let a ticket wait for its next slice, in its old place."""
        self._of(ticket).add(ticket, now, again=True)

    def take(self, now: float) -> Ticket | None:
        """Take the ticket that goes next, or None."""
        return self._served().pop(now)

    def peek(self, now: float) -> Ticket | None:
        """Return the ticket that goes next, or None."""
        return self._served().peek(now)

    def take_planned(self, ticket: Ticket) -> None:
        """Take a ticket that was next when it was planned, if it still waits."""
        if self.waits(ticket):
            self._of(ticket).take(ticket)

    def waits(self, ticket: Ticket) -> bool:
        """Say whether a ticket, or the rest of it, waits."""
        return self._of(ticket).waits(ticket)

    def remove(self, ticket: Ticket) -> bool:
        """Take out a ticket; return whether it was waiting."""
        return self._of(ticket).remove(ticket)

    def remove_all(self) -> list[Ticket]:
        """Take out every ticket."""
        return self._open.pop_all() + self._reserved.pop_all()

    def charge(self, ticket: Ticket, hardware_s: float) -> None:
        """Count hardware time that a ticket has used."""
        self._of(ticket).charge(ticket, hardware_s)

    def served(self, ticket: Ticket, now: float) -> None:
        """Note that rows of a ticket have run."""
        self._of(ticket).served(ticket, now)

    def end_reservation(self) -> list[Ticket]:
        """End the present reservation; take out and return the passes that waited under it."""
        self.reservations.end()
        return self._reserved.pop_all()

    def serves(self, ticket: Ticket) -> bool:
        """Say whether the ticket's turn can come now, or it waits for a reservation to end."""
        return self._of(ticket) is self._served()

    def _of(self, ticket: Ticket) -> WaitingPasses:
        return self._open if ticket.forward_pass.reservation is None else self._reserved

    def _served(self) -> WaitingPasses:
        return self._open if self.reservations.current is None else self._reserved

"""Exclusive use of a system, for a calibration say.

A reservation has an owner, a time to live that heartbeats renew, and a number that rises with every
grant. A pass names the number of the reservation under which it runs; once that has ended, however
it ended, a late pass with the old number is refused (a fencing token: Kleppmann, "How to do
distributed locking", 2016).
"""

import time
from dataclasses import dataclass, replace

from lab.errors import Conflict, ReservationLost, UnknownName

TTL_S = (1.0, 3600.0)


@dataclass(frozen=True)
class Reservation:
    """One grant: who holds which system, until when; times in seconds since the epoch."""

    system: str
    owner: str
    number: int
    ttl_s: float
    since_s: float
    expires_s: float


class Reservations:
    """The reservations of one system, at most one at a time.

    Numbers start at the seconds since the epoch, so that they rise across restarts too.
    """

    def __init__(self, system: str) -> None:
        self.current: Reservation | None = None
        self._system = system
        self._last = int(time.time())

    def grant(self, owner: str, ttl_s: float) -> Reservation:
        """Reserve the system; raise Conflict while it is reserved, ValueError for a bad ttl_s."""
        if not TTL_S[0] <= ttl_s <= TTL_S[1]:
            raise ValueError(
                f"{self._system}: ttl_s {ttl_s:g} is outside [{TTL_S[0]:g}, {TTL_S[1]:g}] s"
            )
        if self.current is not None:
            left_s = self.current.expires_s - time.time()
            raise Conflict(
                f"{self._system} is reserved by {self.current.owner} for {left_s:.0f} s more"
            )
        self._last += 1
        now = time.time()
        self.current = Reservation(self._system, owner, self._last, ttl_s, now, now + ttl_s)
        return self.current

    def renew(self, number: int) -> Reservation:
        """Let the reservation live for its ttl_s from now; raise what `check` raises."""
        held = self.check(number)
        self.current = replace(held, expires_s=time.time() + held.ttl_s)
        return self.current

    def check(self, number: int) -> Reservation:
        """Return the present reservation; raise ReservationLost for an old number.

        Raises UnknownName for a number that was never granted.
        """
        if number > self._last:
            raise UnknownName(f"{self._system} has no reservation {number}")
        if self.current is None or number != self.current.number:
            raise ReservationLost(f"reservation {number} of {self._system} has ended")
        return self.current

    def end(self) -> None:
        """Forget the present reservation."""
        self.current = None

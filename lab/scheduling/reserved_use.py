"""A system's reservation while time passes: granted when the hardware rests, ended when it expires.

`lab.scheduling.reservations` says whose it is; here is what that does to the passes.
"""

import asyncio
from collections.abc import Callable

from lab.errors import ReservationLost, SystemClosed
from lab.scheduling.hardware import Hardware
from lab.scheduling.pass_queue import PassQueue
from lab.scheduling.planning import Planning
from lab.scheduling.reservations import Reservation


class ReservedUse:
    """Grant, renew and end the reservations of one system; on the event loop's thread.

    closed: whether the system is; has_ended: called when others have their turn again; lost: called
    before that where nobody released it, so that the holder may have left anything behind;
    calibration: the name of the one in force.
    """

    def __init__(
        self,
        name: str,
        hardware: Hardware,
        passes: PassQueue,
        planning: Planning,
        closed: Callable[[], bool],
        has_ended: Callable[[], object],
        lost: Callable[[], object],
        calibration: Callable[[], str],
    ) -> None:
        self._name, self._hardware, self._passes = name, hardware, passes
        self._planning, self._closed = planning, closed
        self._has_ended, self._lost = has_ended, lost
        self._calibration = calibration
        self._expiry: asyncio.TimerHandle | None = None

    async def reserve(self, owner: str, ttl_s: float) -> Reservation:
        """Reserve the system; return once the call in flight, if any, has ended."""
        self._refuse_closed()
        granted = self._passes.reservations.grant(owner, ttl_s)
        self._expire_after(ttl_s)
        self._planning.unplan()
        for call in self._planning.on_hardware():
            call.cut = True
        try:
            await self._hardware.quiet()
        except asyncio.CancelledError:
            if self._passes.reservations.current == granted:  # nobody knows its number
                self.end()
            raise
        self._refuse_closed()
        return self._passes.reservations.check(granted.number)

    def heartbeat(self, number: int) -> Reservation:
        """Let a reservation live for its ttl_s from now; raise ReservationLost, UnknownName."""
        renewed = self._passes.reservations.renew(number)
        self._expire_after(renewed.ttl_s)
        return renewed

    def release(self, number: int) -> None:
        """End a reservation and its passes; raise ReservationLost, UnknownName."""
        self._passes.reservations.check(number)
        self.end()

    def end(self) -> None:
        """Fence off the present reservation, if any: none of its rows starts any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._passes.reservations.current is None:
            return
        self._planning.unplan()
        calls = self._planning.on_hardware()
        for portion in (portion for call in calls for portion in call.portions):
            if portion.ticket.forward_pass.reservation is not None:
                self._passes.remove(portion.ticket)
                portion.ticket.stop(ReservationLost)
        for ticket in self._passes.end_reservation():
            ticket.fail_stopped(ReservationLost, self._calibration())
        self._has_ended()

    def _expire_after(self, ttl_s: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(ttl_s, self._expire)

    def _expire(self) -> None:
        self._lost()
        self.end()

    def _refuse_closed(self) -> None:
        if self._closed():
            raise SystemClosed(f"{self._name} is closed")

"""What becomes of the passes of a hardware call: who pays, and who ends, goes on or repeats."""

from collections.abc import Callable

from drivers.errors import Aborted, DriverError
from lab.errors import NotPermitted, SystemClosed, SystemStopped
from lab.scheduling.faults import Faults
from lab.scheduling.hardware import Hardware
from lab.scheduling.pass_queue import PassQueue
from lab.scheduling.ticket import HardwareCall, Portion, Ticket


class Settling:
    """Charge for the calls of one system and settle their passes; on the event loop's thread.

    closed: whether the system is; calibration: the name of the one in force.
    """

    def __init__(
        self,
        hardware: Hardware,
        passes: PassQueue,
        faults: Faults,
        closed: Callable[[], bool],
        calibration: Callable[[], str],
    ) -> None:
        self._hardware, self._passes, self._faults = hardware, passes, faults
        self._closed, self._calibration = closed, calibration

    def charge_planned(self, portion: Portion) -> None:
        """Let a pass's client pay in advance, so that the next choice knows of it."""
        portion.charged_s = self._hardware.expected_s(portion.left)
        self._passes.charge(portion.ticket, portion.charged_s)

    def charge(self, call: HardwareCall) -> None:
        """Let each pass's client pay for its rows, no more and no less."""
        measured = sum(portion.executed for portion in call.portions)
        if measured:
            self._faults.health.works()
        for p in call.portions:
            spent_s = (call.ended_s - call.begun_s) * p.executed / measured if measured else 0.0
            self._passes.charge(p.ticket, spent_s - p.charged_s)
            if p.executed:
                self._passes.served(p.ticket, self._hardware.now())

    def deliver(self, ticket: Ticket) -> None:
        """End a pass that is complete, unless it has ended."""
        if not ticket.outcome.done():
            ticket.deliver(self._calibration())

    def settle(self, ticket: Ticket, call: HardwareCall) -> None:
        """End a pass that was in a call, or let it wait for its next slice."""
        if self._goes_on(ticket, call):
            if not self._passes.waits(ticket):
                self._passes.put_back(ticket, self._hardware.now())
            return
        self._passes.remove(ticket)
        if ticket.outcome.done():
            return
        if ticket.error is not None:
            ticket.fail(ticket.error)
        elif _is_void(ticket, call):
            ticket.fail(self._faults.refusal(call.error))
        elif call.error is not None and ticket in call.interrupted:
            self._repeat_or_fail(ticket, call.interrupted[ticket], call.error)
        elif ticket.done == ticket.rows or ticket.stopped():
            ticket.deliver(self._calibration())
        elif self._closed():
            ticket.fail_stopped(SystemClosed, self._calibration())
        else:
            ticket.fail(self._faults.refusal(call.error))

    def _goes_on(self, ticket: Ticket, call: HardwareCall) -> bool:
        """Say whether a pass that was in a call has rows to come, and nothing speaks against it."""
        if ticket.ends() or ticket.done == ticket.rows or self._closed():
            return False
        if ticket in call.interrupted:
            return False
        return not self._faults.health.reason or self._faults.lets_wait(ticket)

    def _repeat_or_fail(self, ticket: Ticket, rows: int, error: Exception) -> None:
        again = ticket.may_repeat() and not ticket.stopped()
        if again and isinstance(error, DriverError) and not self._faults.health.given_up:
            ticket.repeat(rows)
            self._passes.put_back(ticket, self._hardware.now())
        elif isinstance(error, Aborted) and ticket.stopped():  # it had ended before the stop came
            ticket.deliver(self._calibration())
        else:
            ticket.fail(error)


def _is_void(ticket: Ticket, call: HardwareCall) -> bool:
    """Say whether a stop, or a permit that was withdrawn, has hit the pass."""
    interrupted = isinstance(call.error, NotPermitted) and ticket in call.interrupted
    return interrupted or ticket.stop_with in (SystemStopped, NotPermitted)

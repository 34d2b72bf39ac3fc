"""What is wrong with one system, and which of its passes that ends."""

import logging
from collections.abc import Callable

from drivers.errors import reason
from lab.errors import NotPermitted, SystemFaulted, SystemStopped
from lab.scheduling.health import Health
from lab.scheduling.pass_queue import PassQueue
from lab.scheduling.ticket import Ticket
from lab.traces import trace_of

log = logging.getLogger(__name__)


class Faults:
    """The health of one system as its passes feel it; on the event loop's thread."""

    def __init__(
        self, name: str, health: Health, passes: PassQueue, now: Callable[[], float]
    ) -> None:
        self.health = health
        self._name, self._passes, self._now = name, passes, now
        self._told = False  # in the log, that it is out of use

    def fault(self, error: Exception) -> None:
        """Mark the system faulted, and fail those that do not wait for its recovery."""
        if self.health.held:
            return  # that is known, and nobody waits
        why = reason(error)
        if isinstance(error, NotPermitted):
            self.hold(why)
        else:
            self.health.fault(why, self._now())
            log.error("%s is faulted: %s", self._name, why, exc_info=trace_of(error))
            self._told = True
        for ticket in self._passes.tickets():
            if not self.lets_wait(ticket):
                self._passes.remove(ticket)
                ticket.fail(self.refusal(error))

    def hold(self, reason: str, *, stopped: bool = False) -> None:
        """Take the system out of use until it is re-armed; stopped: somebody asked for it."""
        if self.health.reason != reason:
            log.warning("%s is out of use: %s", self._name, reason)
            self._told = True
        self.health.hold(reason, stopped=stopped)

    def recovered(self) -> None:
        """Note that the system has started; nothing if it is held meanwhile."""
        self.health.recovered()
        if self._told and not self.health.reason:
            log.warning("%s is in use again", self._name)
            self._told = False

    def lets_wait(self, ticket: Ticket) -> bool:
        """Say whether a pass waits for the recovery, and there may be one."""
        return ticket.forward_pass.on_fault == "wait" and not self.health.given_up

    def refusal(self, cause: Exception | None = None) -> SystemFaulted:
        """Return the error for a pass that the system does not take."""
        if self.health.stopped:
            refusal: SystemFaulted = SystemStopped(f"{self._name} is stopped: {self.health.reason}")
        else:
            refusal = SystemFaulted(f"{self._name} is faulted: {self.health.reason}")
        refusal.__cause__ = cause
        return refusal

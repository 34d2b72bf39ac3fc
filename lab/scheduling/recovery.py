"""The start of one system, its recovery after a fault or a stop, and the safe state in the end."""

import logging
from collections.abc import Awaitable, Callable

from drivers.errors import parts
from lab.errors import NotPermitted
from lab.scheduling.faults import Faults
from lab.scheduling.hardware import Hardware
from lab.traces import trace_of

log = logging.getLogger(__name__)


class Recovery:
    """Bring one system up and down; on the event loop's thread, while its hardware is held.

    due: it has to restart before anything else runs.
    """

    def __init__(
        self, name: str, hardware: Hardware, faults: Faults, rearm: Callable[[], None]
    ) -> None:
        """Take what re-arms the bench's protection, blocking; it raises NotPermitted."""
        self.due = False
        self._name, self._hardware, self._faults = name, hardware, faults
        self._rearm = rearm

    async def start(self) -> Exception | None:
        """Start the system; return what went wrong, which is then its fault."""
        return await self._bring_up(self._hardware.start)

    async def restart(self) -> Exception | None:
        """Do as `start`, but shut down first, as far as possible."""
        return await self._bring_up(self._hardware.restart)

    async def rearm_and_restart(self) -> Exception | None:
        """Return what went wrong; a stop that comes meanwhile holds."""
        health = self._faults.health
        reason, stopped = health.reason, health.stopped
        health.rearm()
        try:
            await self._hardware.rearm(self._rearm)
        except NotPermitted as error:
            health.hold(reason if stopped else str(error), stopped=stopped)
            return error
        if health.held:
            return self._faults.refusal()
        return await self.restart()

    async def leave_safe(self) -> None:
        """Bring the instruments to their safe state; a failure is logged and in the status."""
        health = self._faults.health
        try:
            await self._hardware.leave_safe()
        except Exception as error:
            health.reason = f"safe state not confirmed: {parts(error)}"
            log.error("%s: %s", self._name, health.reason, exc_info=trace_of(error))

    async def _bring_up(self, call: Callable[[], Awaitable[None]]) -> Exception | None:
        self.due = False
        try:
            await call()
        except Exception as error:
            self._faults.fault(error)
            return error
        self._faults.recovered()
        return None

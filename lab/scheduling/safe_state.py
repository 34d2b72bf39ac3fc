"""The safe state out of turn: at once, whoever holds the system, and told instrument by instrument.

"At once" is after the call in flight, which `abort` ends within one wire call; a second command is
never sent while one may be on the wire.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.scheduling.finish import finish
from lab.scheduling.hardware import Hardware

WITHIN_S = 10.0  # a call that does not return is not waited for any longer
SAFE = "safe"
_BUSY = "not confirmed: an instrument call does not return"


@dataclass(frozen=True)
class SystemStop:
    """What a stop did to one system; instruments: "safe", or why that is not confirmed, by name."""

    name: str
    reason: str
    instruments: Mapping[str, str]

    @property
    def confirmed(self) -> bool:
        """Get whether every instrument has confirmed its safe state."""
        return all(outcome == SAFE for outcome in self.instruments.values())


class SafeStateOnDemand:
    """Bring one system's instruments to their safe state; on the event loop's thread.

    closed: None while the system is open; what its close, which ends in the safe state by itself,
    could not confirm, or "".
    """

    def __init__(self, hardware: Hardware, closed: Callable[[], str | None]) -> None:
        self._hardware, self._closed = hardware, closed
        self._task: asyncio.Task[dict[str, str]] | None = None

    def soon(self) -> asyncio.Task[dict[str, str]]:
        """Have it done as soon as the instruments rest; who asks meanwhile shares the task."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._reach())
        return self._task

    async def outcomes(self) -> dict[str, str]:
        """Have it done; return each instrument's outcome, in `WITHIN_S` at the latest."""
        done, _ = await asyncio.wait([self.soon()], timeout=WITHIN_S)
        if done:
            return done.pop().result()
        return dict.fromkeys(self._names(), _BUSY)

    async def finish(self) -> None:
        """Wait for the task, if there is one."""
        if self._task is not None:
            await finish(self._task)

    async def _reach(self) -> dict[str, str]:
        async with self._hardware.hold():
            if (unconfirmed := self._closed()) is not None:
                return dict.fromkeys(self._names(), unconfirmed or SAFE)
            errors = await self._hardware.make_safe()
        return {**dict.fromkeys(self._names(), SAFE), **errors}

    def _names(self) -> list[str]:
        return [instrument.name for instrument in self._hardware.system.instruments]

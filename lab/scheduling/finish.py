"""Waiting for hardware to the end, which a cancelled task does too.

A cancelled task calls its `on_cancel`, still waits, and is only then cancelled: whoever goes on
after it finds the hardware at rest.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Outcome(asyncio.Future[T], Generic[T]):
    """A future for one waiting task, whose cancellation does not reach it.

    What `finish` does, without a second future and its two more turns of the loop: a pass of one
    row is quick enough to notice.
    """

    _on_cancel: Callable[[], object] | None = None

    async def end(self, on_cancel: Callable[[], object]) -> T:
        """Wait for it to its end; see the module."""
        self._on_cancel = on_cancel
        try:
            return await self
        except asyncio.CancelledError as cancelled:
            if self.done():
                cancelled.__cause__ = self.exception()  # seen: who was cancelled finds it there
            raise
        finally:
            self._on_cancel = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Decline: asyncio asks this first, and then cancels the task when it goes on."""
        if self._on_cancel is not None and not self.done():
            self._on_cancel()
        return False


async def finish(future: asyncio.Future[T], on_cancel: Callable[[], object] | None = None) -> T:
    """Wait for any future to its end; see the module."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if future.cancelled():
            raise
        if on_cancel is not None:
            on_cancel()
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue  # asked once more; the first request is raised below
        if not future.cancelled():
            future.exception()  # seen: the canceller gets CancelledError instead
        raise

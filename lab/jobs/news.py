"""Tell those who watch jobs that there is news of one, from any thread."""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

# Of jobs that another process works on nobody tells; so often watchers look for themselves.
LOOK_EVERY_S = 1.0


class NewsBoard:
    """Wake the watchers of a job; made on their event loop."""

    def __init__(self) -> None:
        """Start with nobody watching."""
        self._loop = asyncio.get_running_loop()
        self._next: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        """Let the event loop call something, from any thread; nothing once it has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    def tell(self, job_id: str) -> None:
        """Wake those who watch a job, from any thread."""
        self.on_loop(self._spread, job_id)

    def news(self, job_id: str) -> asyncio.Event:
        """Return an event for the next news of a job; take it before looking into the store."""
        event = self._next.get(job_id)
        if event is None:
            event = self._next[job_id] = asyncio.Event()
        return event

    def _spread(self, job_id: str) -> None:
        event = self._next.pop(job_id, None)
        if event is not None:
            event.set()


async def wait_for_news(event: asyncio.Event, at_most_s: float = LOOK_EVERY_S) -> None:
    """Wait for an event of a board's, or until it is time to look anyway."""
    try:
        async with asyncio.timeout(at_most_s):
            await event.wait()
    except TimeoutError:
        return

"""A reservation kept alive from this process: heartbeats in a thread, release at the end."""

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lab.errors import LabError, ReservationLost, UnknownName

if TYPE_CHECKING:
    from lab.client import Client

_BEATS_PER_TTL = 3  # two may be lost before the reservation is


class HeldReservation:
    """A system that is ours: `with` keeps it so and releases it at the end, whatever happens.

    Without `with` it ends ttl_s after it was granted, unless somebody calls `Client.heartbeat`.
    """

    def __init__(self, granted: Mapping[str, Any], open_client: Callable[[], "Client"]) -> None:
        """Take the service's answer, and what opens a client for the thread of the heartbeats."""
        self.granted = dict(granted)
        self.system: str = granted["system"]
        self._number: int = granted["number"]
        self._ttl_s: float = granted["ttl_s"]
        self._open_client = open_client
        self._end = threading.Event()
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def number(self) -> int:
        """Get the number that passes name; raises ReservationLost once it is known to be lost."""
        if self._lost is not None:
            raise ReservationLost(str(self._lost)) from self._lost
        return self._number

    def wait(self) -> None:
        """Wait, for good: until the reservation is lost, which raises ReservationLost."""
        while not self._end.wait(0.5):  # on Windows, Ctrl-C is heard only between waits
            pass
        _ = self.number

    def __enter__(self) -> Self:
        """Send the first heartbeat, and the others from a thread; raises ReservationLost."""
        with self._open_client() as client:
            client.heartbeat(self.system, self._number)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the system; raises ReservationLost unless another error is on its way."""
        self._end.set()
        self._thread.join()
        try:
            with self._open_client() as client:
                client.release(self.system, self.number)
        except LabError as failed:
            if error is None:
                raise
            error.add_note(f"releasing {self.system}: {failed}")

    def _beat(self) -> None:
        """Send heartbeats until the end; one that fails is repeated as long as it can help."""
        alive_until = time.monotonic() + self._ttl_s
        with self._open_client() as client:
            while not self._end.wait(self._ttl_s / _BEATS_PER_TTL):
                sent = time.monotonic()
                try:
                    client.heartbeat(self.system, self._number)
                    alive_until = sent + self._ttl_s
                except (LabError, ValueError) as error:  # ValueError: an answer that is no JSON
                    ended = isinstance(error, ReservationLost | UnknownName)
                    if ended or time.monotonic() > alive_until:
                        self._lost = error
                        self._end.set()

"""The interlock of a bench: watched while the bench is open, and asked before it is driven.

Software cannot be the laser interlock: that one is wired, and works without any computer. This
reads its contact, so that nothing is driven against it and the instruments stand safe with it.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

from drivers.errors import DriverError
from drivers.interlock import Interlock, ScpiInterlock
from drivers.transport import Rig, open_visa
from lab.bench_config import InterlockConfig
from lab.errors import NotPermitted
from lab.permits import Listener, Withdrawal


def open_interlock(config: InterlockConfig, rigs: Mapping[str, Rig]) -> "WatchedInterlock":
    """Return the interlock of a bench file, not yet read."""

    def connect() -> Interlock:
        adapter = open_visa(config.address, rigs, timeout_s=config.timeout_s)
        return ScpiInterlock(adapter, input=config.input, ok=config.ok)

    contact = f"{config.input} at {config.address} does not read {config.ok}"
    return WatchedInterlock(connect, config.interval_s, contact)


class WatchedInterlock:
    """A permit that is withdrawn when the contact is not OK, or cannot be read; use `with`.

    A thread reads the contact every `interval_s`; `check` reads it too where the last reading is
    older than that. A failure to read means not OK, and the next reading connects anew.
    """

    def __init__(
        self,
        connect: Callable[[], Interlock],
        interval_s: float,
        contact: str = "its contact says so",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read through what `connect` returns; it may raise DriverError, now or later.

        contact: what is read when the interlock is open, for the message.
        """
        self._connect = connect
        self._contact = contact
        self._interval_s = interval_s
        self._clock = clock
        self._interlock: Interlock | None = None
        self._withdrawal = Withdrawal()
        self._reading = threading.Lock()
        self._read_s = float("-inf")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="interlock", daemon=True)

    def __enter__(self) -> Self:
        """Read once, and watch from now on."""
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop watching and release the connection."""
        self._ended.set()
        self._thread.join()
        with self._reading:
            self._drop()

    def check(self) -> None:
        """Raise NotPermitted unless the contact was OK, at most `interval_s` ago."""
        if self._clock() - self._read_s > self._interval_s:
            self._look()
        self._withdrawal.check()

    def rearm(self) -> None:
        """Read now: permit again if the contact is OK, else raise NotPermitted."""
        with self._reading:
            reason = self._why_not()
        if reason is not None:
            raise NotPermitted(reason)
        self._withdrawal.lift()

    def listen(self, listener: Listener) -> None:
        """Call `listener` whenever the contact opens or cannot be read."""
        self._withdrawal.listen(listener)

    def _watch(self) -> None:
        # twice an interval, so that `check` hardly ever has to read
        while not self._ended.wait(self._interval_s / 2):
            self._look()

    def _look(self) -> None:
        with self._reading:
            reason = self._why_not()
        if reason is not None:
            self._withdrawal.withdraw(reason)

    def _why_not(self) -> str | None:
        """Read the contact and return why the bench may not be driven; None: it may."""
        try:
            if self._interlock is None:
                self._interlock = self._connect()
            ok = self._interlock.is_ok()
        except DriverError as error:
            self._drop()
            return f"the interlock cannot be read: {error}"
        self._read_s = self._clock()
        return None if ok else f"the interlock is open: {self._contact}"

    def _drop(self) -> None:
        interlock, self._interlock = self._interlock, None
        if interlock is not None:
            try:
                interlock.close()
            except DriverError:
                return  # nothing is driven through it

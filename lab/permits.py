"""What has to permit that a bench is driven: its interlock, and the guard beside its process.

A permit is asked before and after every instrument call, and it tells by itself when it is
withdrawn. Once withdrawn it stays so until somebody re-arms it.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from lab.errors import NotPermitted

Listener = Callable[[NotPermitted], object]
"""Hears, in any thread and quickly, why a permit has been withdrawn."""


class Permit(Protocol):
    """One thing that has to permit driving; all its methods are for any thread."""

    def check(self) -> None:
        """Raise NotPermitted unless the bench may be driven now."""
        ...

    def rearm(self) -> None:
        """Permit again, if the cause is gone; raise NotPermitted if it is not."""
        ...

    def listen(self, listener: Listener) -> None:
        """Call `listener` whenever the permit is withdrawn; at once if it is withdrawn now."""
        ...


class Withdrawal:
    """Whether a permit has been withdrawn, why, and who hears of it; thread-safe."""

    def __init__(self) -> None:
        """Begin permitted."""
        self._error: NotPermitted | None = None
        self._listeners: list[Listener] = []
        self._changing = threading.Lock()

    def withdraw(self, reason: str) -> None:
        """Permit nothing from now on; the first reason stays."""
        with self._changing:
            if self._error is not None:
                return
            self._error = error = NotPermitted(reason)
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(error)

    def check(self) -> None:
        """Raise NotPermitted, with the reason, while withdrawn."""
        error = self._error
        if error is not None:
            raise NotPermitted(str(error))

    def lift(self) -> None:
        """Permit again."""
        with self._changing:
            self._error = None

    def listen(self, listener: Listener) -> None:
        """Call `listener` at every withdrawal; at once if there is one."""
        with self._changing:
            self._listeners.append(listener)
            error = self._error
        if error is not None:
            listener(error)

"""Whether a system works, why not, and when its recovery is tried next."""

import time


class Health:
    """The faults of one system and the back-off between tries to recover it.

    reason:  what is wrong, empty if nothing is. since_s: since when, seconds since the epoch.
    tried:   tries of recovery since a row was last measured.
    next_s:  monotonic time of the next try, or None where none will be made by itself.
    held:    out of use, whatever else happens, until it is re-armed; stopped: by somebody.
    """

    def __init__(self, attempts: int, delay_s: float) -> None:
        """Try at most `attempts` times: at once, after `delay_s`, after twice that, and so on."""
        self.reason = "it has not started yet"
        self.since_s = time.time()
        self.tried = 0
        self.next_s: float | None = None
        self.held = self.stopped = False
        self._attempts, self._delay_s = attempts, delay_s

    @property
    def given_up(self) -> bool:
        """Say whether the system waits for somebody to recover it."""
        return bool(self.reason) and self.next_s is None

    def fault(self, reason: str, now: float) -> None:
        """Note a fault, and when to try to recover; nothing while it is held."""
        if self.held:
            return
        self._set(reason)
        self.next_s = None
        if self.tried < self._attempts:
            self.next_s = now + (self._delay_s * 2 ** (self.tried - 1) if self.tried else 0.0)
            self.tried += 1

    def hold(self, reason: str, *, stopped: bool = False) -> None:
        """Keep the system out of use until `rearm`; the first stop's reason stays."""
        if self.stopped:
            return
        self._set(reason)
        self.next_s = None
        self.held, self.stopped = True, stopped

    def rearm(self) -> None:
        """Let the next start or fault decide again."""
        self.held = self.stopped = False

    def recovered(self) -> None:
        """Note that the system has started; nothing if it is held meanwhile."""
        if self.held:
            return
        self._set("")
        self.next_s = None

    def works(self) -> None:
        """Note that rows were measured: whatever fault comes next is a new one."""
        self.tried = 0

    def _set(self, reason: str) -> None:
        if bool(reason) != bool(self.reason):
            self.since_s = time.time()
        self.reason = reason

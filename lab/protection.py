"""What protects a bench that is open: its interlock and its guard, where there are any."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from drivers.transport import Rig
from lab.bench_config import BenchConfig
from lab.guarding import BenchGuard
from lab.interlock import WatchedInterlock, open_interlock
from lab.permits import Listener, Permit


@dataclass(frozen=True)
class Protection:
    """The permits that driving needs, and the guard that has to be shown a live event loop."""

    permits: tuple[Permit, ...] = ()
    guard: BenchGuard | None = None

    def listen(self, listener: Listener) -> None:
        """Call `listener` whenever one of the permits is withdrawn."""
        for permit in self.permits:
            permit.listen(listener)

    def rearm(self) -> None:
        """Re-arm every permit; raise NotPermitted for the first that does not permit."""
        for permit in self.permits:
            permit.rearm()


UNPROTECTED = Protection()


def enter_interlock(
    stack: ExitStack, config: BenchConfig, rigs: Mapping[str, Rig]
) -> WatchedInterlock | None:
    """Watch the interlock of a bench until `stack` ends; None where it has none."""
    if config.interlock is None:
        return None
    return stack.enter_context(open_interlock(config.interlock, rigs))


def protected_by(guard: BenchGuard | None, interlock: WatchedInterlock | None) -> Protection:
    """Wait for the guard, and return what protects the bench."""
    if guard is not None:
        guard.await_ready()
    permits = [permit for permit in (interlock, guard) if permit is not None]
    return Protection(tuple(permits), guard)

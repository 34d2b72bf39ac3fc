"""What can be made to go wrong, once, at the far end of the wire."""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """One-shot faults of a simulated instrument."""

    TIMEOUT = "timeout"
    """The request is carried out; its answer comes too late for the host."""
    DROP = "drop"
    """The instrument closes the connection instead of acting."""
    GARBAGE = "garbage"
    """The answer is replaced by bytes that mean nothing."""
    TRUNCATE = "truncate"
    """The second half of the answer is missing."""
    IDENTITY = "identity"
    """Another instrument answers the question for the identity."""
    REFUSE = "refuse"
    """The instrument understands, does nothing, and reports an error."""


GARBAGE = b"\xff\xfe\x00?!"


class ConnectionDropped(Exception):
    """The firmware closed the connection; the transport shows it as the real one would."""


class AnswerLate(Exception):
    """The firmware acted but its answer will not arrive in time."""


@dataclass(frozen=True)
class _Armed:
    fault: Fault
    on: bytes


class FaultQueue:
    """The faults armed for one instrument; each strikes the first request that contains `on`."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def arm(self, fault: Fault, on: str) -> None:
        """Let `fault` strike once, on the next request that contains the text `on`."""
        self._armed.append(_Armed(fault, on.encode()))

    def take(self, request: bytes, kinds: frozenset[Fault] = frozenset(Fault)) -> Fault | None:
        """Return and disarm the first fault of these kinds that this request meets."""
        for armed in self._armed:
            if armed.fault in kinds and armed.on in request:
                self._armed.remove(armed)
                return armed.fault
        return None

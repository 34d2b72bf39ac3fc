"""What can be made to go wrong at the far end of the wire: once, or for several requests.

Three places: the firmware (`Fault`: it knows its own language), the wire before it (`WireFault`:
any instrument, in memory and on sockets) and the plant behind it (`PlantFault`: what is read).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """Faults of a simulated instrument's firmware."""

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


class WireFault(StrEnum):
    """Faults of the wire to an instrument with a network interface; a request is what arrives."""

    STALL = "stall"
    """Nothing is read any more on this connection, and nothing answered, until it is closed."""
    DELAY = "delay"
    """The request is carried out; its answer comes `delay_s` later."""


class PlantFault(StrEnum):
    """Faults of what an instrument reads from its plant; a request is one reading."""

    STUCK = "stuck"
    """The instrument repeats its last reading."""
    SATURATION = "saturation"
    """Every value is the detector's full scale."""
    DEAD_PIXEL = "dead pixel"
    """The value number `pixel` of every row reads zero."""
    DRIFT_BURST = "drift burst"
    """The plant has jumped: all that it sends is weaker by the share `burst`."""


AnyFault = Fault | WireFault | PlantFault
_KINDS: dict[str, AnyFault] = {
    fault.value: fault for kind in (Fault, WireFault, PlantFault) for fault in kind
}
GARBAGE = b"\xff\xfe\x00?!"
_MANY = 1_000_000


class ConnectionDropped(Exception):
    """The firmware closed the connection; the transport shows it as the real one would."""


class AnswerLate(Exception):
    """The firmware acted but its answer will not arrive in time."""


@dataclass(frozen=True)
class FaultOrder:
    """A fault to arm: where, which, and on what.

    instrument: by the last part of its `mock://rig/...` address. on: only requests that contain
    this text (readings have none). times: for so many requests. delay_s (0 to 600), pixel (from
    0; one beyond a reading strikes nothing) and burst (0 to 1) say how bad it is.
    """

    instrument: str
    fault: AnyFault
    on: str = ""
    times: int = 1
    delay_s: float = 1.0
    pixel: int = 0
    burst: float = 0.2

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "FaultOrder":
        """Return the order that a file or a request states; raise ValueError with the reason."""
        known = {field.name for field in fields(cls)}
        if unknown := [key for key in data if key not in known]:
            raise ValueError(f"fault: no {', '.join(unknown)} (there are: {', '.join(known)})")
        for key in ("instrument", "fault", "on"):
            if not isinstance(data.get(key, ""), str) or (key != "on" and key not in data):
                raise ValueError(f"fault: {key}: a text is needed")
        if data["fault"] not in _KINDS:
            raise ValueError(f"fault: '{data['fault']}' is none of {', '.join(_KINDS)}")
        for key, (low, high, whole) in _RANGES.items():
            _check_number(key, data.get(key, low), low, high, whole=whole)
        return cls(**{**data, "fault": _KINDS[data["fault"]]})


_RANGES = {
    "times": (1, _MANY, True),
    "delay_s": (0, 600, False),
    "pixel": (0, _MANY, True),
    "burst": (0, 1, False),
}


def _check_number(key: str, value: object, low: float, high: float, *, whole: bool) -> None:
    kind = "a whole number" if whole else "a number"
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:  # type: ignore[operator]  # a number by now
        raise ValueError(f"fault: {key}: {kind} from {low:g} to {high:g} is needed, not {value!r}")


@dataclass
class _Armed:
    fault: Fault
    on: bytes
    left: int = 1  # requests that it strikes yet


class FaultQueue:
    """The faults armed for one instrument; each strikes the first request that contains `on`."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def arm(self, fault: Fault, on: str) -> None:
        """Let `fault` strike once, on the next request that contains the text `on`."""
        last = self._armed[-1] if self._armed else None
        if last is not None and (last.fault, last.on) == (fault, on.encode()):
            last.left += 1
        else:
            self._armed.append(_Armed(fault, on.encode()))

    def clear(self) -> None:
        """Disarm every fault."""
        self._armed.clear()

    def take(self, request: bytes, kinds: frozenset[Fault] = frozenset(Fault)) -> Fault | None:
        """Return and disarm the first fault of these kinds that this request meets."""
        for armed in self._armed:
            if armed.fault in kinds and armed.on in request:
                armed.left -= 1
                if not armed.left:
                    self._armed.remove(armed)
                return armed.fault
        return None


class OrderQueue:
    """The orders armed for one wire or one plant, each with the requests that it has left."""

    def __init__(self) -> None:
        self._armed: list[tuple[FaultOrder, int]] = []

    def __bool__(self) -> bool:
        return bool(self._armed)

    def arm(self, order: FaultOrder) -> None:
        """Let the order strike the next requests that it is meant for."""
        self._armed.append((order, order.times))

    def clear(self) -> None:
        """Disarm every order."""
        self._armed.clear()

    def take(self, request: bytes = b"") -> FaultOrder | None:
        """Return the first order that this request meets, and count it."""
        for i, (order, left) in enumerate(self._armed):
            if order.on.encode() in request:
                if left == 1:
                    del self._armed[i]
                else:
                    self._armed[i] = order, left - 1
                return order
        return None

"""What can go wrong between a caller and an instrument.

DriverError
├── LimitError            a value outside the declared range, shape or dtype; nothing was sent
├── ConnectionLost        the instrument cannot be reached or closed the connection
├── InstrumentTimeout     no answer within the instrument's timeout
├── ProtocolError         an answer that is not what the manual promises (garbage, truncated)
├── InstrumentRefused     the instrument answered and said no (rc, HTTP status, error queue)
├── IdentityError         another instrument answers than the bench file expects
├── Aborted               somebody asked the operation to end; the instrument is to be started again
└── ReplayError           a recorded session goes another way than the driver that it is played to

Every message names the instrument, what was asked, what happened, and the limit with its unit.
What is refused before it is sent is logged, as a warning of the logger `drivers.limits`.
"""

import logging
from typing import NoReturn

_log = logging.getLogger("drivers.limits")


def reason(error: BaseException) -> str:
    """Return on one line what went wrong, with its notes; of a group, in each of its parts."""
    text, kind = str(error), type(error)
    if isinstance(error, BaseExceptionGroup):
        text = f"{error.message}: {parts(error)}"
    elif not text or kind.__module__ == "builtins":  # KeyError's message is but the key
        text = f"{kind.__name__}: {text}" if text else kind.__name__
    return " ".join("; ".join([text, *getattr(error, "__notes__", [])]).split())


def parts(error: BaseException) -> str:
    """Return as `reason` does what went wrong in each part of a group, or in a single error."""
    found = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
    return "; ".join(reason(part) for part in found)


class DriverError(Exception):
    """Report a failed exchange with one instrument; `instrument` is its bench-file name."""

    def __init__(self, instrument: str, message: str) -> None:
        super().__init__(f"{instrument}: {message}")
        self.instrument = instrument


class LimitError(DriverError, ValueError):
    """Refuse a value before anything is sent; `quantity` names the array at fault."""

    def __init__(self, instrument: str, quantity: str, message: str) -> None:
        super().__init__(instrument, f"{quantity}: {message}")
        self.quantity = quantity


def refuse(instrument: str, quantity: str, message: str) -> NoReturn:
    """Log a refusal and raise it as LimitError."""
    error = LimitError(instrument, quantity, message)
    _log.warning("%s", error)
    raise error


class ConnectionLost(DriverError):
    """The instrument cannot be reached, or it closed the connection."""


class InstrumentTimeout(DriverError):
    """The instrument did not answer within its timeout."""


class ProtocolError(DriverError):
    """The instrument answered something that its manual does not allow."""


class InstrumentRefused(DriverError):
    """The instrument understood and refused: its own error code and text are in the message."""


class IdentityError(DriverError):
    """The instrument at this address is not the one the bench file expects."""


class Aborted(DriverError):
    """The operation ended early because somebody asked for it (`Instrument.abort`)."""


class ReplayError(DriverError):
    """The driver does not do what it did in the recorded session that is played to it."""

"""What a system's own worker thread does: the only code that touches the instruments.

Plain blocking functions. A failed start or pass leaves, as far as it can be reached, a system in
its safe state by the time anyone hears of the failure; where it cannot, the error carries a note.
"""

import time

from drivers.errors import LimitError, ProtocolError
from lab.scheduling.waiting import Ticket
from lab.systems.base import PhysicalSystem, Rows


def start(system: PhysicalSystem) -> None:
    """Start the system, or put it into its safe state and raise what went wrong."""
    try:
        system.start()
    except Exception as error:
        make_safe(system, error)
        raise


def restart(system: PhysicalSystem) -> None:
    """Shut down as far as possible, then start; the start decides whether the system is ok."""
    try:
        system.shutdown()
    except Exception as error:
        try:
            start(system)
        except Exception as second:
            second.add_note(f"before that, the shutdown failed: {error!r}")
            raise
    else:
        start(system)


def make_safe(system: PhysicalSystem, error: Exception) -> None:
    """Put the system into its safe state; a failure becomes a note on `error`."""
    try:
        system.shutdown()
    except Exception as second:
        error.add_note(f"safe state not confirmed: {second!r}")


def measure(system: PhysicalSystem, ticket: Ticket) -> Rows:
    """Measure a pass's rows until its end or its stop, and keep the time on its ticket.

    A LimitError leaves the system as it is (the driver sent nothing of that row); any other error
    is a fault and puts it into its safe state.
    """
    p = ticket.forward_pass
    ticket.begun = time.time(), time.monotonic()
    try:
        rows = system.transform(p.x, p.theta, p.keys, ticket.stopped)
        if len(rows.y) != ticket.rows and not ticket.stopped():
            raise ProtocolError(p.system, f"measured {len(rows.y)} of {ticket.rows} rows")
        return rows
    except LimitError:
        raise
    except Exception as error:
        make_safe(system, error)
        raise
    finally:
        ticket.ended = time.time(), time.monotonic()

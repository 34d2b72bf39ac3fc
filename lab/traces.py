"""Which errors a log shows the trace of: those whose message does not say it all."""

from drivers.errors import DriverError
from lab.errors import LabError


def trace_of(error: Exception) -> Exception | None:
    """Return what to show the trace of: nothing where the message says it all.

    So it does in errors of instruments and of the lab; of a group, what is none of these is left.
    """
    told = (DriverError, LabError)
    if isinstance(error, ExceptionGroup):
        return error.split(told)[1]
    return None if isinstance(error, told) else error

"""What can go wrong in the lab service.

LabError
├── ConfigError         a bench file or a request that cannot be used; names file, key and reason
├── UnknownName         no such system, twin, job, task or method
├── PassCancelled       the forward pass was cancelled; its remaining rows were not measured
├── SystemFaulted       the system takes no passes until it is recovered
├── SystemClosed        the scheduler is shutting down
├── WrongThread         a blocking call on the event loop's own thread
├── Stopped             a training run or fit ended early because it was asked to
├── DataError           a data set that is missing, truncated, altered or unusable
└── Conflict            the request does not fit the present state (job already ended, ...)

Failures of instruments keep their own type (`drivers.errors`); a forward pass raises what its
driver raised.
"""


class LabError(Exception):
    """Base of the lab's errors."""


class ConfigError(LabError, ValueError):
    """A bench file or request that cannot be used: names file, key and reason."""


class UnknownName(LabError, LookupError):
    """No such system, twin, job, task or method."""


class PassCancelled(LabError):
    """The forward pass was cancelled; its remaining rows were not measured."""


class SystemFaulted(LabError):
    """The system takes no passes until it is recovered; the message says why."""


class SystemClosed(LabError):
    """The scheduler is shutting down and takes no more passes."""


class WrongThread(LabError, RuntimeError):
    """A blocking call on the event loop's own thread, which would wait for itself."""


class Stopped(LabError):
    """A training run or a fit ended early because it was asked to."""


class DataError(LabError):
    """A data set that is missing, truncated, altered or unusable."""


class Conflict(LabError):
    """The request does not fit the present state of what it names."""

"""What can go wrong in the lab service.

LabError
├── ConfigError         a bench file or a request that cannot be used; names file, key and reason
├── UnknownName         no such system, twin, job, task or method
├── PassCancelled       the forward pass was cancelled; its remaining rows were not measured
├── DeadlineMissed      the pass's deadline passed before its last row was measured
├── PassTimeout         the pass took longer on the hardware than it allows
├── ReservationLost     the pass's reservation has ended, or it is another's
├── QueueFull           too many passes wait; come back in `retry_after_s` seconds
├── SystemFaulted       the system takes no passes until it is recovered
│   └── SystemStopped   somebody stopped it: it waits until somebody re-arms it
├── NotPermitted        the interlock is open, or the guard has made the bench safe
├── SystemClosed        the scheduler is shutting down
├── WrongThread         a blocking call on the event loop's own thread
├── Stopped             a training run or fit ended early because it was asked to
├── Superseded          another process works on the job by now; this one may not write any more
├── DatabaseAway        database or disk is out of reach; come back in `retry_after_s` seconds
├── TrainerDied         the process in which a job computes died, or hung, again and again
├── PartsFailed         parts of a comparison did not succeed
├── DataError           a data set that is missing, truncated, altered or unusable
└── Conflict            the request does not fit the present state (job already ended, ...)
    └── CheckpointRefused  a training would go on from the checkpoint of another one

Failures of instruments keep their own type (`drivers.errors`); a forward pass raises what its
driver raised.
"""


class LabError(Exception):
    """Base of the lab's errors.

    measured: of a pass that was ended before its last row, the `lab.measurement.Measurement` of the
    rows that it had by then.
    """

    measured: object = None


class ConfigError(LabError, ValueError):
    """A bench file or request that cannot be used: names file, key and reason."""


class UnknownName(LabError, LookupError):
    """No such system, twin, job, task or method."""


class PassCancelled(LabError):
    """The forward pass was cancelled; its remaining rows were not measured."""


class DeadlineMissed(LabError):
    """The pass's deadline passed before its last row was measured."""


class PassTimeout(LabError):
    """The pass took longer, from its first row on, than it allows."""


class ReservationLost(LabError):
    """The reservation under which a pass would run has ended, or is not its client's."""


class QueueFull(LabError):
    """Too many passes or rows wait; a place should be free in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(f"{message}; try again in {retry_after_s:.0f} s")
        self.reason = message
        self.retry_after_s = retry_after_s


class SystemFaulted(LabError):
    """The system takes no passes until it is recovered; the message says why."""


class SystemStopped(SystemFaulted):
    """Somebody has put the system into its safe state; it is out of use until it is re-armed."""


class NotPermitted(LabError):
    """The bench may not be driven: the message says what forbids it, and since when."""


class SystemClosed(LabError):
    """The scheduler is shutting down and takes no more passes."""


class WrongThread(LabError, RuntimeError):
    """A blocking call on the event loop's own thread, which would wait for itself."""


class Stopped(LabError):
    """A training run or a fit ended early because it was asked to."""


class Superseded(LabError):
    """Another process works on the job by now; this one may not write any more."""


class DatabaseAway(LabError):
    """Nothing can be written or read now, for a reason that may pass: full disk, no connection."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(
            f"the database is out of reach ({reason}); try again in {retry_after_s:.0f} s"
        )
        self.reason = reason
        self.retry_after_s = retry_after_s


class TrainerDied(LabError):
    """The process in which a job computes died, or hung, too often without getting further."""


class PartsFailed(LabError):
    """Parts of a comparison did not succeed; the message names them."""


class DataError(LabError):
    """A data set that is missing, truncated, altered or unusable."""


class Conflict(LabError):
    """The request does not fit the present state of what it names."""


class CheckpointRefused(Conflict):
    """A training would go on from a checkpoint that is of another config, bench, data or twin."""

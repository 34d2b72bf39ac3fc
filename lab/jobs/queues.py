"""Which queue a job waits in: that of the service that has its instruments, or one of all."""

from lab.config import TrainConfig
from lab.jobs.configs import CompareConfig
from lab.jobs.hosts import KnownSystem
from lab.jobs.kinds import JobConfig
from lab.jobs.records import FitConfig, Order

ANYWHERE = "anywhere"  # the queue of what any service may work on
COMPARISONS = "comparisons"  # the same, of jobs that only wait for others


def queue_of(host: str) -> str:
    """Return the queue of what one service alone works on."""
    return f"host {host}"


def queue_for(config: JobConfig, order: Order, known: KnownSystem, *, shared: bool) -> str:
    """Return the queue of a job on a system; shared: whether there is one of all services."""
    match config:
        case CompareConfig():
            return COMPARISONS
        case FitConfig():
            goes_anywhere = True
        case TrainConfig():  # the physics are where the system is
            goes_anywhere = order.parent is not None and config.method != "ideal"
        case _:
            goes_anywhere = False
    return ANYWHERE if shared and goes_anywhere and known.url else queue_of(known.host)

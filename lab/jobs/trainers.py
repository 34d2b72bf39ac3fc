"""What a job's supervision asks of trainer processes, wherever they come from."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol


class Trainer(Protocol):
    """A trainer process (`lab.jobs.pipe_desk.work_at`); whoever has it calls `end`."""

    line: Connection
    """Both ways to it."""

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does; from any thread, idempotent."""

    def end(self) -> str:
        """Wait for its end, after `kill` or its last word; return how it ended. Idempotent."""


class Trainers(Protocol):
    """Where trainer processes come from; thread-safe."""

    def trainer(self, stopped: Callable[[], bool] = ...) -> Trainer:
        """Return a new trainer process; raise TrainerDied if it cannot be started.

        Raises Stopped if `stopped` says so while it waits for the process.
        """

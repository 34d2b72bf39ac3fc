"""What a job's work is given, and what it may ask of the lab: the seam between the two.

The work (`lab.jobs.work`) imports torch and knows no store, no scheduler and no instruments. Behind
the desk stands the job in its service (`lab.jobs.job_desk`), here or at the other end of a pipe
(`lab.jobs.pipe_desk`).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from lab.calibration_rows import CalibrationRows
from lab.config import TwinKind
from lab.jobs.kinds import WorkConfig
from lab.jobs.records import TwinRecord
from lab.measure import Run
from lab.oracle import Simulation
from lab.systems.base import SystemDescription


@dataclass(frozen=True)
class Elsewhere:
    """Where a job's system is, if not on this service's bench: at `url`; the rest says who asks."""

    url: str
    client: str
    attempt: int


@dataclass(frozen=True)
class Assignment:
    """One job's work, all of it plain data.

    description, family, simulation: of the system that it measures on; family is its name in
    SYSTEMS. bench: digest of the bench. Of a calibration, rows: those of a round; before: the last
    one's job and result. Of an evaluation, trained: the result of the training that it tests.
    elsewhere: how the rows are measured, if not at the desk.
    """

    job: str
    config: WorkConfig
    description: SystemDescription
    family: str
    simulation: Simulation
    bench: str
    rows: CalibrationRows | None = None
    before: tuple[str, dict[str, Any]] | None = None
    trained: dict[str, Any] | None = None
    elsewhere: Elsewhere | None = None


class Desk(Protocol):
    """What work may ask of the lab; blocking, and only `run` and `stopped` for several threads."""

    def run(self) -> Run:
        """Return what executes the job's rows."""

    def stopped(self) -> bool:
        """Say whether the job is to end."""

    def check(self) -> None:
        """Raise Stopped if the job is to end."""

    def metric(self, metric: Mapping[str, Any]) -> None:
        """Keep one metric and tell the job's watchers."""

    def plan_rows(self, rows: int) -> None:
        """Expect so many rows more than planned so far."""

    def count_rows(self, rows: int) -> None:
        """Count rows that were measured elsewhere."""

    def when_stopped(self, call: Callable[[], object]) -> AbstractContextManager[None]:
        """Have something called when the job is to end, inside the block; it must not block."""

    def start_pace(self) -> None:
        """Take the job's pace from here on."""

    def go_back(self, step: int, rows: int) -> None:
        """Go on from the checkpoint after `step` steps and `rows` rows; 0: from the beginning.

        What was told later is dropped, for it comes again.
        """

    def twin(self, twin_id: str) -> TwinRecord:
        """Return a kept twin; raise UnknownName."""

    def own_twin(self) -> TwinRecord | None:
        """Return the twin that this job has fitted, if it has."""

    def find_or_begin_twin(
        self, system: str, kind: TwinKind, rows: int, seed: int
    ) -> TwinRecord | None:
        """Return a kept twin like this; None: the job is to fit it now, and others wait for it.

        Raises Stopped if the job is stopped while another one fits it.
        """

    def add_twin(self, record: TwinRecord, state: bytes) -> None:
        """Keep a twin and its parameters, for those who wait for it too."""

    def read(self, name: str) -> bytes:
        """Return a kept file; raise OSError."""

    def write(self, name: str, data: bytes) -> None:
        """Keep a file, whole or not at all; raise OSError."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, without it, sorted."""

    def delete(self, name: str) -> None:
        """Drop a kept file; nothing if it is not there."""


Work = Callable[[Assignment, Desk], dict[str, Any]]
"""Does a job and returns its result as plain data; raises Stopped when it was stopped."""

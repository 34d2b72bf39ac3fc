"""Record what jobs measure, in a thread of its own, so that no row waits for a disk."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lab.errors import Conflict, DataError
from lab.measurement import ForwardPass, Measurement
from lab.recording.copying import pack
from lab.recording.known_rows import KnownRows, read_known
from lab.recording.layout import Layout, columns_of, layout_of
from lab.recording.notes import Gap, NoteBook
from lab.recording.shelf import Shelf
from lab.recording.writer import RowWriter, read_metadata, rows_of, size_of
from lab.systems.base import SystemDescription

log = logging.getLogger(__name__)

BUDGET_GB = 10.0
_WORTH = 100  # times as long as a write takes, until the next one, within these bounds:
_EVERY_S = (1.0, 2.0)
_WAITING_BYTES = 256 * 2**20  # what may wait for the disk
_IDLE_S = 60.0  # after which a job's writer is closed; it may be opened again
_RETRY_S = 10.0


@dataclass(frozen=True)
class RecordedRows:
    """What is recorded of a job's rows.

    rows: those in the files; one that was measured again counts again. bytes: of the disk. notes:
    what is missing or was deleted, and why.
    """

    rows: int = 0
    bytes: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class _Open:
    """A job's writer, when it was last used, and why the job is not recorded just now."""

    writer: RowWriter | None = None
    used_s: float = 0.0
    why: str = ""
    retry_s: float = 0.0


class RowRecorder:
    """Takes the passes of jobs and writes them within a second or two; close it, or use `with`.

    `add` is for any thread and waits for nothing. What cannot be written (a full disk, a budget
    that is used up, a disk that does not keep up) is told in the log and in the job's notes; the
    jobs go on, and recording as soon as it can. What `flush` has returned from is on the disk, and
    a job that is stopped or killed and goes on measures again what came after its checkpoint: so
    flush before a checkpoint is written, and before a job ends.
    """

    def __init__(
        self,
        folder: Path,
        describe: Callable[[str], SystemDescription],
        *,
        bench: str,
        ended: Callable[[str], bool],
        budget_bytes: int = int(BUDGET_GB * 1e9),
        retry_s: float = _RETRY_S,
    ) -> None:
        """Record into `folder`, of systems that `describe` describes by name; see `Shelf`.

        bench: digest of the bench's configuration. retry_s: when to try again after a failure.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._describe, self._bench, self._retry_s = describe, bench, retry_s
        self._notes = NoteBook(folder)
        self._shelf = Shelf(folder, budget_bytes, self._notes, ended)
        self._open: dict[str, _Open] = {}
        self._changed = threading.Condition()
        self._waiting: list[tuple[ForwardPass, Measurement]] = []
        self._waiting_bytes = 0
        self._overflown: list[tuple[str, Gap]] = []
        self._added = self._written = 0
        self._hurry = self._closed = False
        self._pause_s = _EVERY_S[0]
        self._thread = threading.Thread(target=self._run, name="row-recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, forward_pass: ForwardPass, measurement: Measurement) -> None:
        """Take a pass of a job (`forward_pass.job`) that has been measured; its arrays are kept.

        Does nothing for a pass of no job, nor after `close`. Raises DataError for what is no id.
        """
        size = forward_pass.x.nbytes + forward_pass.theta.nbytes + measurement.y.nbytes
        job = forward_pass.job
        if job and not (job.isascii() and job.isalnum()):  # it becomes the name of a file
            raise DataError(f"'{job}' is no job's id: letters and digits only")
        with self._changed:
            if self._closed or not job or not len(measurement.y):
                return
            if self._waiting_bytes + size > _WAITING_BYTES:
                gap = _gap(measurement, "the disk did not keep up")
                self._overflown.append((job, gap))
                return
            self._waiting.append((forward_pass, measurement))
            self._waiting_bytes += size
            self._added += 1
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until what was added before is on the disk, or noted as missing."""
        with self._changed:
            wanted = self._added
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._written >= wanted)

    def close(self) -> None:
        """Write what is left and end the thread; idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def recorded(self, job: str) -> RecordedRows:
        """Return what is recorded of a job's rows."""
        path, notes = self._shelf.path(job), self._notes.of(job).sentences()
        try:
            rows = rows_of(read_metadata(path))
        except DataError:  # none was measured, or they were deleted
            rows = 0
        return RecordedRows(rows, size_of(path), notes)

    def known(self, job: str, since_s: float) -> KnownRows:
        """Return the last rows of a job that were measured from then on, s since the epoch.

        Those of another bench are left out.
        """
        self.flush()
        if job not in self._shelf:
            return KnownRows()
        try:
            return read_known(self._shelf.path(job), bench=self._bench, since_s=since_s)
        except DataError as error:
            log.warning("job %s: what came after its checkpoint is measured again: %s", job, error)
            return KnownRows()

    def pack(self, job: str) -> Path:
        """Return a zip file of a job's rows, each once, that Zarr opens.

        The caller deletes the folder that it lies in. Raises Conflict where there are no rows.
        """
        self.flush()
        notes = self._notes.of(job).sentences()
        try:
            if not rows_of(read_metadata(self._shelf.path(job))):
                raise DataError(f"job {job}: an empty group")
            return pack(self._shelf.path(job), self._shelf.folder, notes)
        except DataError as error:
            why = "; ".join(notes) or "none was measured while rows were recorded"
            raise Conflict(f"job {job} has no rows: {why}") from error

    # the thread

    def _run(self) -> None:
        while (passes := self._next()) is not None:
            began_s = time.monotonic()
            try:
                self._record_all(passes)
            except Exception:  # whoever flushes must not wait for ever, nor the next rows be lost
                log.exception("measured rows could not be recorded")
            least, most = _EVERY_S
            self._pause_s = min(most, max(least, _WORTH * (time.monotonic() - began_s)))
            with self._changed:
                self._written += len(passes)
                self._changed.notify_all()
        self._close_idle(0.0)
        self._notes.write()

    def _record_all(self, passes: list[tuple[ForwardPass, Measurement]]) -> None:
        by_job: dict[str, list[tuple[ForwardPass, Measurement]]] = {}
        for item in passes:
            by_job.setdefault(item[0].job, []).append(item)
        for job, items in by_job.items():
            self._record(job, items)
        self._close_idle()
        self._notes.write()

    def _next(self) -> list[tuple[ForwardPass, Measurement]] | None:
        """Wait until passes are due, or for a while; None when all is written and it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, _IDLE_S)
            if self._waiting:
                self._changed.wait_for(lambda: self._hurry or self._closed, self._pause_s)
            elif self._closed:
                return None
            passes, self._waiting = self._waiting, []
            overflown, self._overflown = self._overflown, []
            self._waiting_bytes, self._hurry = 0, False
        for job, gap in overflown:
            self._miss(job, gap)
        return passes

    def _record(self, job: str, passes: list[tuple[ForwardPass, Measurement]]) -> None:
        """Write passes of a job, or note that they are missing."""
        state = self._open.setdefault(job, _Open())
        state.used_s = time.monotonic()
        if state.why and state.used_s < state.retry_s:
            why = state.why
        else:
            why = self._written_or_why(job, state, passes)
            state.retry_s = time.monotonic() + self._retry_s
        if why:
            for _, measurement in passes:
                self._miss(job, _gap(measurement, why))
        elif state.why:
            log.warning("job %s: its rows are recorded again", job)
            state.why = ""

    def _written_or_why(
        self, job: str, state: _Open, passes: list[tuple[ForwardPass, Measurement]]
    ) -> str:
        """Write passes; return why they are not written, or nothing."""
        try:
            layout = layout_of(self._describe(passes[0][0].system), job, self._bench)
            rows = sum(len(measurement.y) for _, measurement in passes)
            if not self._shelf.make_room(layout.most_bytes(rows), job):
                return f"the budget of {self._shelf.budget_bytes} bytes is used up"
            self._forget_deleted()
            self._write(job, state, layout, passes)
        except OSError as error:
            return self._give_up(job, state, error.strerror or str(error))
        except Exception as error:  # the job must not suffer from its record
            log.exception("job %s: its rows could not be recorded", job)
            return self._give_up(job, state, f"{type(error).__name__}: {error}")
        return ""

    def _write(
        self,
        job: str,
        state: _Open,
        layout: Layout,
        passes: Iterable[tuple[ForwardPass, Measurement]],
    ) -> None:
        writer = state.writer or RowWriter(self._shelf.path(job), layout)
        state.writer = writer
        for forward_pass, measurement in passes:
            code = writer.code(measurement.calibration)
            writer.append(columns_of(writer.layout, forward_pass, measurement, code))
        writer.commit()
        self._shelf.holds(job, writer.bytes)

    def _forget_deleted(self) -> None:
        """Drop the writers of deleted groups: they would bring parts of them back."""
        for job, state in self._open.items():
            if job not in self._shelf:
                state.writer = None

    def _give_up(self, job: str, state: _Open, why: str) -> str:
        """Let the next try go on after the last row that a reader sees."""
        state.writer = None
        self._shelf.measure(job)
        return why

    def _miss(self, job: str, gap: Gap) -> None:
        """Note missing rows; say so when they begin to be."""
        state = self._open.setdefault(job, _Open())
        longer = state.why == gap.why
        if not longer:
            log.warning("job %s goes on, but its rows are not recorded: %s", job, gap.why)
        state.why = gap.why
        self._notes.add_gap(job, gap, longer=longer)

    def _close_idle(self, idle_s: float = _IDLE_S) -> None:
        """Close the writers that have not been used for so long."""
        for job, state in list(self._open.items()):
            if time.monotonic() - state.used_s < idle_s:
                continue
            del self._open[job]
            if state.writer is None:
                continue
            try:
                state.writer.close()
            except OSError as error:  # readers see all rows without it
                log.warning("job %s: the end of its rows was not tidied: %s", job, error)
            self._shelf.measure(job)


def _gap(measurement: Measurement, why: str) -> Gap:
    times = measurement.row_s
    return Gap(float(times.min()), float(times.max()), len(times), why)

"""What is missing of a job's rows, and why: kept beside them, and longer than they are."""

import json
import logging
import threading
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from operator import methodcaller
from pathlib import Path

from lab.jobs.data_folder import write_whole

log = logging.getLogger(__name__)

_MOST_GAPS = 100  # a job's; later ones go into the last


@dataclass(frozen=True)
class Gap:
    """Rows that were measured but not recorded, from one time to another, s since the epoch."""

    from_s: float
    to_s: float
    rows: int
    why: str

    def joined(self, other: "Gap") -> "Gap":
        """Return both as one; why: this one's."""
        first, last = min(self.from_s, other.from_s), max(self.to_s, other.to_s)
        return replace(self, from_s=first, to_s=last, rows=self.rows + other.rows)

    def __str__(self) -> str:
        span = f"{_time(self.from_s)} to {_time(self.to_s)}"
        return f"rows missing from {span}: {self.rows} ({self.why})"


@dataclass(frozen=True)
class Deletion:
    """Rows that were deleted at a time, s since the epoch, and what of the disk they took."""

    at_s: float
    rows: int
    bytes: int
    why: str

    def __str__(self) -> str:
        return f"{self.rows} rows ({self.bytes} bytes) deleted at {_time(self.at_s)} {self.why}"


@dataclass(frozen=True)
class Notes:
    """What happened to a job's rows beside being written."""

    missing: tuple[Gap, ...] = ()
    deleted: tuple[Deletion, ...] = ()

    def sentences(self) -> list[str]:
        """Return it for people."""
        return [str(note) for note in (*self.deleted, *self.missing)]


class NoteBook:
    """The notes of all jobs, in one small file each (`JOB.json`); thread-safe.

    What cannot be written, because the disk is full, stays here and is written later.
    """

    def __init__(self, folder: Path) -> None:
        """Keep notes in a folder."""
        self._folder = folder
        self._unwritten: dict[str, Notes] = {}
        self._lock = threading.Lock()

    def of(self, job: str) -> Notes:
        """Return a job's notes."""
        with self._lock:
            return self._unwritten.get(job) or self._read(job)

    def add_gap(self, job: str, gap: Gap, *, longer: bool) -> None:
        """Note missing rows; longer: they go on the last gap."""
        notes = self.of(job)
        gaps = notes.missing
        if gaps and (longer or len(gaps) >= _MOST_GAPS):
            gaps = (*gaps[:-1], gaps[-1].joined(gap))
        else:
            gaps = (*gaps, gap)
        self._keep(job, replace(notes, missing=gaps))

    def add_deletion(self, job: str, deletion: Deletion) -> None:
        """Note deleted rows."""
        notes = self.of(job)
        self._keep(job, replace(notes, deleted=(*notes.deleted, deletion)))

    def write(self) -> None:
        """Write what could not be written before, as far as that is possible now."""
        with self._lock:
            for job, notes in list(self._unwritten.items()):
                content = json.dumps(asdict(notes)).encode()
                try:
                    write_whole(self._path(job), methodcaller("write", content))
                except OSError as error:
                    log.debug("notes on the rows of job %s are not written yet: %s", job, error)
                    return
                del self._unwritten[job]

    def _keep(self, job: str, notes: Notes) -> None:
        with self._lock:
            self._unwritten[job] = notes

    def _read(self, job: str) -> Notes:
        try:
            content = json.loads(self._path(job).read_bytes())
            return Notes(
                tuple(Gap(**gap) for gap in content["missing"]),
                tuple(Deletion(**deletion) for deletion in content["deleted"]),
            )
        except FileNotFoundError:
            return Notes()
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("%s: the notes on a job's rows cannot be read: %s", self._path(job), error)
            return Notes()

    def _path(self, job: str) -> Path:
        return self._folder / f"{job}.json"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

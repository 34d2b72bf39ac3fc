"""Where the groups of all jobs lie, and which go when they take too much of the disk."""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from lab.errors import DataError
from lab.recording.copying import EXPORT
from lab.recording.notes import Deletion, NoteBook
from lab.recording.writer import METADATA, read_metadata, rows_of, size_of

log = logging.getLogger(__name__)

_SUFFIX = ".zarr"
_GOING = ".deleting"


class Shelf:
    """The rows of all jobs, `JOB.zarr` each, within a budget; for one thread.

    ended(job): whether a job has ended, so that its rows may be deleted: the oldest first, each
    whole. Rows of other jobs and notes never are.
    """

    def __init__(
        self, folder: Path, budget_bytes: int, notes: NoteBook, ended: Callable[[str], bool]
    ) -> None:
        """Look what there is, and finish what a killed process had begun to delete."""
        self.folder = folder
        self.budget_bytes = budget_bytes
        self._notes, self._ended = notes, ended
        for left in (*folder.glob(f"*{_GOING}"), *folder.glob(f"{EXPORT}*")):
            shutil.rmtree(left)
        self._bytes = {path.stem: size_of(path) for path in folder.glob(f"*{_SUFFIX}")}

    def __contains__(self, job: str) -> bool:
        return job in self._bytes

    @property
    def bytes(self) -> int:
        """Get what all groups take of the disk."""
        return sum(self._bytes.values())

    def path(self, job: str) -> Path:
        """Return where a job's group lies, or would."""
        return self.folder / f"{job}{_SUFFIX}"

    def holds(self, job: str, size: int) -> None:
        """Know what a job's group takes of the disk now."""
        self._bytes[job] = size

    def measure(self, job: str) -> None:
        """Look again what a job's group takes of the disk: after a write that failed, say."""
        if self.path(job).exists():
            self._bytes[job] = size_of(self.path(job))

    def make_room(self, size: int, job: str) -> bool:
        """Delete what may be until `job` can grow by so many bytes; say whether it can."""
        if self.bytes + size <= self.budget_bytes:
            return True
        going = [other for other in self._oldest() if other != job and self._ended(other)]
        if self.bytes - sum(self._bytes[other] for other in going) + size > self.budget_bytes:
            return False  # whatever were deleted
        while self.bytes + size > self.budget_bytes:
            self._delete(going.pop(0))
        return True

    def _oldest(self) -> list[str]:
        return sorted(self._bytes, key=lambda job: _written_s(self.path(job)))

    def _delete(self, job: str) -> None:
        path = self.path(job)
        why = f"to stay within the budget of {self.budget_bytes} bytes"
        deletion = Deletion(time.time(), _rows(path), self._bytes[job], why)
        log.warning("job %s: %s", job, deletion)
        self._notes.add_deletion(job, deletion)
        self._notes.write()
        going = path.with_suffix(_GOING)
        if path.exists():
            path.rename(going)  # a reader finds all of it or nothing
            shutil.rmtree(going)
        del self._bytes[job]


def _written_s(path: Path) -> float:
    try:
        return (path / METADATA).stat().st_mtime
    except FileNotFoundError:  # it was being created
        return 0.0


def _rows(path: Path) -> int:
    try:
        return rows_of(read_metadata(path))
    except DataError:
        return 0

"""Files by name, whole or not there: in a folder here, or in a table (`lab.jobs.table_files`).

A name is a relative path with slashes, such as `twins/3f2a.pt`.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

from lab.jobs.data_folder import write_whole
from lab.jobs.patience import Patience

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_UNFINISHED = ".tmp"  # of `write_whole`, which a kill may leave


class Files(Protocol):
    """Where files are kept; thread-safe, blocking.

    Beside what is said below everything raises DatabaseAway, or OSError of the disk.
    """

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Keep a file, wholly or not at all, in place of one of that name; ValueError: no name."""

    def read(self, name: str) -> bytes:
        """Return a file's content; raise FileNotFoundError, or DataError if it was altered."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def clear(self) -> None:
        """Delete all files."""

    def under(self, folder: str) -> Self:
        """Return the files whose names begin with `folder` and a slash, without these."""


def checked_name(name: str) -> str:
    """Return a file's name, or raise ValueError: it could lead elsewhere."""
    if not _NAME.fullmatch(name) or name.endswith(_UNFINISHED):
        raise ValueError(f"'{name}' is no name for a file")
    return name


class FolderFiles:
    """Files in a folder, which is made for the first."""

    def __init__(self, folder: Path, patience: Patience | None = None) -> None:
        """With patience, a disk that cannot be written is waited for."""
        self.folder = folder
        self._patience = patience

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Keep a file; see `Files`."""
        path = self._path(name)

        def attempt() -> None:
            write_whole(path, lambda file: file.write(data))

        if self._patience is None:
            attempt()
        else:
            self._patience.keep_trying(attempt, writing=True)

    def read(self, name: str) -> bytes:
        """Return a file's content; see `Files`."""
        return self._path(name).read_bytes()

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self._found())

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the folder with all that is in it."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def under(self, folder: str) -> Self:
        """Return the files of a folder in this one."""
        return type(self)(self._path(folder), self._patience)

    def _path(self, name: str) -> Path:
        return self.folder / checked_name(name)

    def _found(self) -> Iterator[str]:
        for path in self.folder.rglob("*"):
            if not path.is_dir() and path.suffix != _UNFINISHED:
                yield path.relative_to(self.folder).as_posix()

"""The files behind a job's desk, as `lab.jobs.files.Files`."""

from typing import Self

from lab.jobs.desk import Desk


class DeskFiles:
    """The files of one folder behind a desk."""

    def __init__(self, desk: Desk, folder: str) -> None:
        """Ask for them at `desk`."""
        self._desk, self._folder = desk, folder

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Keep a file; see `Files`."""
        self._desk.write(f"{self._folder}/{name}", bytes(data))

    def read(self, name: str) -> bytes:
        """Return a file's content; see `Files`."""
        return self._desk.read(f"{self._folder}/{name}")

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return self._desk.names(self._folder)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        self._desk.delete(f"{self._folder}/{name}")

    def clear(self) -> None:
        """Delete all files."""
        for name in self.names():
            self.delete(name)

    def under(self, folder: str) -> Self:
        """Return the files of a folder in this one."""
        return type(self)(self._desk, f"{self._folder}/{folder}")

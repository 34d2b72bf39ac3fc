"""Files in tables of the database, so that every machine that uses it finds them."""

import hashlib
import time
from typing import Self

import sqlalchemy as sa

from lab.errors import DataError
from lab.jobs.database import Database
from lab.jobs.files import checked_name
from lab.jobs.tables import file_parts, files

PART_BYTES = 8 * 2**20  # a value of the database; a file may have many


class TableFiles:
    """Files in the tables `files` and `file_parts`; see `lab.jobs.files.Files`."""

    def __init__(self, database: Database, folder: str = "", *, hasty: bool = False) -> None:
        """Use those under a folder. hasty: a write that is not possible now fails at once."""
        self._database = database
        self._prefix = f"{folder}/" if folder else ""
        patience = database.patience.none() if hasty else database.patience
        self._writing = database.waiting(patience)
        self._hasty = hasty

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Keep a file; see `Files`."""
        key = self._key(name)
        digest = hashlib.sha256(data).hexdigest()
        values = {"name": key, "size": len(data), "sha256": digest, "created_s": time.time()}
        # first: it lets writers of the same name take turns
        row = self._database.insertion(files, values, ("size", "sha256", "created_s"))

        def replace(connection: sa.Connection) -> None:
            connection.execute(row)
            connection.execute(sa.delete(file_parts).where(file_parts.c.name == key))
            for part, start in enumerate(range(0, len(data), PART_BYTES)):
                content = bytes(data[start : start + PART_BYTES])
                connection.execute(
                    sa.insert(file_parts).values(name=key, part=part, content=content)
                )

        self._writing.write(replace)

    def read(self, name: str) -> bytes:
        """Return a file's content; see `Files`."""
        # one statement: a file that is replaced meanwhile is the old or the new one
        query = (
            sa.select(files.c.sha256, file_parts.c.content)
            .outerjoin_from(files, file_parts)
            .where(files.c.name == self._key(name))
            .order_by(file_parts.c.part)
        )
        rows = self._database.rows(query)
        if not rows:
            raise FileNotFoundError(f"{self._prefix}{name}: there is no such file")
        content = b"".join(row.content or b"" for row in rows)
        if hashlib.sha256(content).hexdigest() != rows[0].sha256:
            raise DataError(f"{self._prefix}{name}: altered, its content is not what was written")
        return content

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        rows = self._database.rows(sa.select(files.c.name).where(self._ours()))
        return sorted(row.name.removeprefix(self._prefix) for row in rows)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        self._delete(files.c.name == self._key(name))

    def clear(self) -> None:
        """Delete all files."""
        self._delete(self._ours())

    def under(self, folder: str) -> Self:
        """Return the files of a folder in this one."""
        return type(self)(self._database, self._key(folder), hasty=self._hasty)

    def _key(self, name: str) -> str:
        return self._prefix + checked_name(name)

    def _ours(self) -> sa.ColumnElement[bool]:
        return files.c.name.startswith(self._prefix, autoescape=True)

    def _delete(self, which: sa.ColumnElement[bool]) -> None:
        # their parts go with them
        self._writing.change(sa.delete(files).where(which))

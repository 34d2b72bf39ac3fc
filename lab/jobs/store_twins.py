"""The fitted twins of a store."""

from typing import Any

import sqlalchemy as sa

from lab.jobs.database import Database
from lab.jobs.plain import plain
from lab.jobs.records import TwinRecord
from lab.jobs.tables import twins


class TwinStore:
    """Keep twins in a database; a part of `lab.jobs.store.Store`."""

    _database: Database

    def add_twin(self, record: TwinRecord) -> None:
        """Keep a twin; its parameters' file must be there already."""
        self._database.insert(twins, {**record.__dict__, "report": plain(record.report)})

    def twin(self, twin_id: str) -> TwinRecord:
        """Return a twin; raise UnknownName."""
        query = _twin_rows().where(twins.c.id == twin_id)
        return _twin(self._database.row(query, f"no twin '{twin_id}'"))

    def twins(self, limit: int = 100) -> list[TwinRecord]:
        """Return the newest twins, newest first."""
        query = _twin_rows().order_by(twins.c.created_s.desc(), twins.c.id).limit(limit)
        return [_twin(row) for row in self._database.rows(query)]

    def find_twin(self, **wanted: str | int) -> TwinRecord | None:
        """Return the newest twin whose columns equal `wanted`, or None."""
        query = _twin_rows().filter_by(**wanted).order_by(twins.c.created_s.desc()).limit(1)
        rows = self._database.rows(query)
        return _twin(rows[0]) if rows else None


def _twin_rows() -> sa.Select[Any]:
    return sa.select(twins)


def _twin(row: sa.Row[Any]) -> TwinRecord:
    return TwinRecord(**row._mapping)

"""The shot numbers of a store, of which none is used twice."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from lab.jobs.database import Database
from lab.jobs.tables import shots

SHOTS_AHEAD = 10**11  # shot numbers set aside for one run of the service: years of measuring


class ShotStore:
    """Set shot numbers aside in a database; a part of `lab.jobs.store.Store`."""

    _database: Database

    def reserve_shots(self, systems: Iterable[str]) -> dict[str, int]:
        """Return each system's first free shot number, and set many aside.

        A process that dies before `release_shots` leaves a gap, but no number is used twice.
        """
        names = sorted(systems)  # in one order, for two hosts at once

        def reserve(connection: sa.Connection) -> dict[str, int]:
            return {system: self._reserve(connection, system) for system in names}

        return self._database.write(reserve)

    def release_shots(self, next_shots: Mapping[str, int]) -> None:
        """Give back the unused numbers: the next of each system, now that none is measured.

        Nothing is given back where somebody else has reserved numbers since.
        """

        def release(connection: sa.Connection) -> None:
            for system, next_shot in next_shots.items():
                ours = shots.c.next_shot <= next_shot + SHOTS_AHEAD
                change = sa.update(shots).where(shots.c.system == system, ours)
                connection.execute(change.values(next_shot=next_shot))

        self._database.write(release)

    def _reserve(self, connection: sa.Connection, system: str) -> int:
        new = {"system": system, "next_shot": 0}
        connection.execute(self._database.insertion(shots, new))
        query = sa.select(shots.c.next_shot).where(shots.c.system == system).with_for_update()
        first: int = connection.execute(query).scalar_one()
        change = sa.update(shots).where(shots.c.system == system)
        connection.execute(change.values(next_shot=first + SHOTS_AHEAD))
        return first

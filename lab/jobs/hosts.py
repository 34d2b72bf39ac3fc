"""The services that share a database: which there are, what each measures, and who has died.

Every service beats: it counts a number in its row up. One whose number others have seen stand still
for `DEAD_AFTER_S` of their own steady clock is dead to them, however it ended: killed, frozen, or
without power. No wall clock is compared with another.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from lab.jobs.database import Database
from lab.jobs.tables import hosts

BEAT_EVERY_S = 2.0
DEAD_AFTER_S = 12.0
_BLIND_S = 6.0  # who has not looked for so long knows nothing of how long a number stood still


@dataclass(frozen=True)
class KnownSystem:
    """A system as every service sees it.

    host: the service whose instruments it is made of; url: where that is reached, empty: nowhere.
    family: its name in SYSTEMS. bench: digest of the bench. simulated: whether it is.
    """

    name: str
    host: str
    url: str
    family: str
    bench: str
    simulated: bool


class HostBook:
    """The table of hosts; blocking, thread-safe."""

    def __init__(self, database: Database) -> None:
        """Use a database whose tables are there."""
        self._database = database

    def enter(
        self,
        name: str,
        systems: Mapping[str, KnownSystem],
        url: str,
        bench: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what a service is that has just started, or is reached at another address.

        bench: its `lab.provenance.bench_record`.
        """
        plain = {system: asdict(known) for system, known in systems.items()}
        row = {"name": name, "url": url, "systems": plain, "beats": 0, "since_s": time.time()}
        row["bench"] = bench
        replaced = ["url", "systems", "since_s", "bench"]
        self._database.insert(hosts, row, replaced)

    def bench(self, name: str) -> dict[str, Any] | None:
        """Return the bench record of a service, None where it has told none."""
        query = sa.select(hosts.c.bench).where(hosts.c.name == name)
        rows = self._database.rows(query)
        return rows[0].bench if rows else None

    def beat(self, name: str) -> None:
        """Say that a service is alive."""
        count = sa.update(hosts).where(hosts.c.name == name).values(beats=hosts.c.beats + 1)
        self._database.change(count)

    def beats(self) -> dict[str, int]:
        """Return every service's number."""
        query = sa.select(hosts.c.name, hosts.c.beats)
        rows = self._database.rows(query)
        return {row.name: row.beats for row in rows}

    def systems(self) -> dict[str, KnownSystem]:
        """Return the systems of all services, by name."""
        query = sa.select(hosts).order_by(hosts.c.since_s)  # the newest service of a name counts
        rows = self._database.rows(query)
        return {
            system: KnownSystem(**{**fields, "host": row.name, "url": row.url})
            for row in rows
            for system, fields in row.systems.items()
        }


class Watch:
    """Who has died, as one service sees it; for one thread."""

    def __init__(
        self, dead_after_s: float = DEAD_AFTER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with nobody seen; clock: steady, in s."""
        self._dead_after_s, self._clock = dead_after_s, clock
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_s: float | None = None

    def look(self, beats: Mapping[str, int], wanted: set[str]) -> set[str]:
        """Return which of the wanted services are dead; to be called every few seconds.

        A service that is not in `beats` at all counts as one whose number stands still.
        """
        now, looked = self._clock(), self._looked_s
        if looked is not None and now - looked > _BLIND_S:
            self._seen.clear()
        self._looked_s = now
        for name in wanted | set(beats):
            number = beats.get(name, -1)
            if self._seen.get(name, (None, 0.0))[0] != number:
                self._seen[name] = number, now
        return {n for n in wanted if now - self._seen[n][1] >= self._dead_after_s}

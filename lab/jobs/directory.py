"""Which systems there are, on this bench and on those of other services of the same database."""

from typing import Any

from lab.bench import Bench
from lab.errors import UnknownName
from lab.jobs.hosts import HostBook, KnownSystem
from lab.provenance import bench_record


class Directory:
    """The systems that a job of this service may name.

    host: this service's name. url: where others reach it; empty: they do not. book: of the services
    that share the database, None where there is only this one. record: of its own bench, see
    `lab.provenance.bench_record`.
    """

    def __init__(self, bench: Bench, host: str = "local", book: HostBook | None = None) -> None:
        """Start without an address."""
        self.host, self.book, self.url = host, book, ""
        self.record = bench_record(bench.config, bench.text)
        digest = bench.config.measurement_digest()
        self._here = {
            name: (config.system, digest, bench.rig(name) is not None)
            for name, config in bench.config.systems.items()
        }

    def own(self) -> dict[str, KnownSystem]:
        """Return the systems of this bench, by name."""
        return {
            name: KnownSystem(name, self.host, self.url, *facts)
            for name, facts in self._here.items()
        }

    def system(self, name: str) -> KnownSystem:
        """Return a system; raise UnknownName with the names there are. Blocking."""
        own = self.own()
        if name in own:
            return own[name]
        others = {} if self.book is None else self.book.systems()
        if name not in others:
            there = ", ".join(sorted({*own, *others})) or "none"
            raise UnknownName(f"no system '{name}' (there are: {there})")
        return others[name]

    def bench_of(self, name: str) -> dict[str, Any]:
        """Return the bench record of what measures a system; raise UnknownName. Blocking."""
        if self.is_here(name) or self.book is None:
            return self.record
        known = self.system(name)
        told = self.book.bench(known.host)
        digests = {"text_digest": None, "measurement_digest": known.bench}
        return told or {"name": known.host, **digests, "config": {}}

    def is_here(self, name: str) -> bool:
        """Say whether a system is on this bench."""
        return name in self._here

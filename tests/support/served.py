"""A simulated bench on sockets, in a thread of the test's own process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from drivers.mock.rig import Rig
from drivers.mock.serve.sockets import Served, serving
from drivers.transport import open_rigs
from lab.config import BenchConfig, load_bench
from lab.rigs import on_sockets

ROOT = Path(__file__).parents[2]


@contextmanager
def served(rigs: Mapping[str, Rig], addresses: Sequence[str]) -> Iterator[Served]:
    """Serve the instruments at these `mock://` addresses on free ports."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(rigs, addresses)) as there,
    ):
        yield there


@contextmanager
def served_bench(config: BenchConfig | None = None) -> Iterator[tuple[BenchConfig, dict[str, Rig]]]:
    """Serve a bench (default: bench.toml); yield what its client writes, and the rigs there."""
    config = config or load_bench(ROOT / "bench.toml")
    rigs = open_rigs(config.rigs)
    addresses = [part.address for part in config.instruments.values()]
    with served(rigs, addresses) as there:
        yield on_sockets(config, there.admin, there.addresses), rigs

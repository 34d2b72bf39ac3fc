"""A simulated bench on sockets, in a thread of the test's own process."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from drivers.mock.rig import Rig
from drivers.mock.serve.sockets import Served, serving
from drivers.transport import open_rigs
from lab.bench_config import BenchConfig, load_bench
from lab.rigs import on_sockets

LIMIT_S = 10.0  # nothing here lasts so long unless it hangs
SHORT_S = 0.2  # how long is waited for answers that do not come
ROOT = Path(__file__).parents[2]


@contextmanager
def served(
    rigs: Mapping[str, Rig], addresses: Sequence[str], *, host: str = "127.0.0.1"
) -> Iterator[Served]:
    """Serve the instruments at these `mock://` addresses on free ports."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(rigs, addresses, host=host)) as there,
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


def port_of(address: str) -> int:
    """Return the port of an `http://` or a VISA address."""
    return int(address.split(":")[-1] if address.startswith("http") else address.split("::")[2])


def connected(address: str) -> socket.socket:
    """Connect to what listens at an address on this machine."""
    return socket.create_connection(("127.0.0.1", port_of(address)), timeout=LIMIT_S)


def send_for_ever(line: socket.socket) -> None:
    """Send zeros until that fails."""
    while True:
        line.sendall(bytes(1 << 16))

"""Put everything that a bench file simulates on sockets, and take it off again."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from drivers.mock.faults import OrderQueue
from drivers.mock.rig import HttpFirmware, Rig, StreamFirmware, wire_of
from drivers.mock.serve.admin import Admin
from drivers.mock.serve.connection import Connection
from drivers.mock.serve.stream import StreamConnection
from drivers.mock.serve.web import HttpConnection

_HTTP_ADDRESS = "http://{host}:{port}"
_VISA_ADDRESS = "TCPIP0::{host}::{port}::SOCKET"
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Served:
    """Where a simulated bench listens.

    addresses: what a bench file writes, by `mock://` address; None where an instrument has no
    network wire and stays in memory.
    """

    admin: str
    addresses: dict[str, str | None]


def serve(
    rigs: Mapping[str, Rig],
    addresses: Sequence[str],
    *,
    host: str,
    port: int,
    on_ready: Callable[[Served], None],
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; as `serving`. Main thread only."""

    async def until_stopped() -> None:
        with _stop_event() as stop:
            async with serving(rigs, addresses, host=host, port=port) as served:
                on_ready(served)
                await stop.wait()

    asyncio.run(until_stopped())


@asynccontextmanager
async def serving(
    rigs: Mapping[str, Rig], addresses: Sequence[str], *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Served]:
    """Serve the instruments at these `mock://` addresses; at the end reset what is connected.

    port: of the admin interface; the instruments with a network wire follow in their order. 0:
    free ones. Raises ValueError for an address that names none, OSError for a port in use.
    """
    connections: set[Connection] = set()
    listeners: list[asyncio.Server] = []
    ports = _ports(port)

    async def listen(make: Callable[[], Connection], written: str) -> str:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(make, await _resolved(host), next(ports))
        listeners.append(listener)
        shown = _WILDCARDS.get(host, host)
        shown = f"[{shown}]" if ":" in shown else shown
        return written.format(host=shown, port=listener.sockets[0].getsockname()[1])

    try:
        admin = Admin(rigs)
        at = await listen(
            lambda: HttpConnection(admin.handle, OrderQueue(), connections), _HTTP_ADDRESS
        )
        served = dict[str, str | None]()
        for address in dict.fromkeys(addresses):
            rig, name = _instrument(address, rigs)
            way = _connection_to(rig, name, connections)
            served[address] = None if way is None else await listen(*way)
        yield Served(at, served)
    finally:
        for listener in listeners:
            listener.close()
        while connections:  # each leaves when its end has been told; one may just have come
            for connection in list(connections):
                connection.abort()
            await asyncio.sleep(0)


async def _resolved(host: str) -> str:
    """Return one address of a host, of version 4 where it has one: each would get its own port."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    families = {family: str(address[0]) for family, *_, address in reversed(found)}
    return families.get(socket.AF_INET) or str(found[0][4][0])


def _connection_to(
    rig: Rig, name: str, connections: set[Connection]
) -> tuple[Callable[[], Connection], str] | None:
    """Return what makes a connection to an instrument, and how its address is written."""
    firmware, wire = rig.instruments[name], rig.wire(name)
    match wire_of(firmware):
        case "http":
            handle = cast(HttpFirmware, firmware).handle
            return lambda: HttpConnection(handle, wire, connections), _HTTP_ADDRESS
        case "stream":
            stream = cast(StreamFirmware, firmware)
            written = getattr(firmware, "network_address", _VISA_ADDRESS)
            return lambda: StreamConnection(stream, wire, connections), written
    return None


def _instrument(address: str, rigs: Mapping[str, Rig]) -> tuple[Rig, str]:
    rig, _, name = address.removeprefix("mock://").partition("/")
    if rig not in rigs or name not in rigs[rig].instruments:
        there = [f"mock://{r}/{i}" for r in rigs for i in rigs[r].instruments]
        raise ValueError(f"{address}: no such instrument (there are: {', '.join(there)})")
    return rigs[rig], name


def _ports(first: int) -> Iterator[int]:
    while True:
        yield first
        first += bool(first)


@contextmanager
def _stop_event() -> Iterator[asyncio.Event]:
    """Return an event that a signal sets; main thread only."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def handle(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        # who started us ignoring a signal (nohup) wants it ignored
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

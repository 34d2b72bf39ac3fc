"""What an address names: a simulated or recorded instrument in this process, or a real one."""

from collections.abc import Mapping

from drivers.mock.faults import OrderQueue
from drivers.mock.remote import RemoteRig
from drivers.mock.replay import ReplayedStream
from drivers.mock.rig import Rig

MOCK = "mock://"
REPLAY = "replay://"
IN_MEMORY = (MOCK, REPLAY)


def firmware_at(address: str, rigs: Mapping[str, Rig]) -> object:
    """Return the simulated instrument of an address, or what replays a recorded session.

    Raises ValueError for an address that names none in this process.
    """
    if address.startswith(REPLAY):
        return ReplayedStream(address.removeprefix(REPLAY))
    rig, _, instrument = address.removeprefix(MOCK).partition("/")
    if rig not in rigs:
        raise ValueError(f"{address}: no rig '{rig}' (there are: {', '.join(rigs) or 'none'})")
    there = rigs[rig].instruments
    if isinstance(rigs[rig], RemoteRig):
        raise ValueError(f"{address}: rig '{rig}' is served on sockets; give the real address")
    if instrument not in there:
        raise ValueError(f"{address}: rig '{rig}' has no '{instrument}' (but {', '.join(there)})")
    return there[instrument]


def faults_on_wire(address: str, rigs: Mapping[str, Rig]) -> OrderQueue | None:
    """Return the faults armed for the way to a simulated instrument; None for a recorded one."""
    if address.startswith(REPLAY):
        return None
    rig, _, instrument = address.removeprefix(MOCK).partition("/")
    return rigs[rig].wire(instrument)


def host_and_port(address: str, place: str, default: int) -> tuple[str, int]:
    """Read `host[:port]`; raise ValueError, which names the address, for anything else."""
    host, colon, port = place.partition(":")
    if not host or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise ValueError(f"{address}: not a host, or host:port with a port of 1 to 65535")
    return host, int(port) if colon else default

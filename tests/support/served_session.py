"""A byte-stream firmware on a loopback port, served as `pnnlab mock` does it."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal

from drivers.mock.rig import Rig, StreamFirmware
from drivers.mock.serve.sockets import serving


@contextmanager
def served(firmware: StreamFirmware) -> Iterator[int]:
    """Serve the firmware until the block ends; yield the port."""
    address = "mock://rig/instrument"
    rigs = {"rig": Rig(None, {"instrument": firmware})}
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(rigs, [address])) as there,
    ):
        written = there.addresses[address]
        assert written is not None
        yield int(next(part for part in reversed(written.split(":")) if part.isdecimal()))

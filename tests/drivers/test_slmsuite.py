"""Through real slmsuite: its simulated display, here and behind its own server on loopback."""

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from drivers.errors import ConnectionLost, DriverError, InstrumentTimeout
from drivers.shapers.slm import SLMShaper
from drivers.transport import open_slm

slmsuite = pytest.importorskip("slmsuite", reason="needs `pip install 'pnnlab[slm]'`")

DISPLAY = "slm://slmsuite.hardware.slms.simulated.SimulatedSLM?resolution=(48,64)&name=panel"
ATTENUATION_DB = np.array([0.0, 3.0, 12.0, 60.0])
PHASE_RAD = np.array([0.0, 1.0, -2.0, 3.0])


def shaper_at(address: str) -> SLMShaper:
    display = open_slm(address, {}, timeout_s=1)
    return SLMShaper(
        display, name="slm", lines=4, columns_per_line=10, first_column=8, settling_time_s=0.0
    )


def first_order(phase: np.ndarray) -> np.ndarray:
    """Return what a slit takes of each column, (columns,), for a grating of 8 rows."""
    rows = np.arange(len(phase))
    return np.exp(-2j * np.pi * rows / 8) @ np.exp(1j * phase) / len(phase)


def check_field(slm) -> None:
    """Check the phase that slmsuite says it realises, in its own sign convention."""
    field = first_order(np.asarray(slm.phase, dtype=np.float64))
    commanded = 10 ** (ATTENUATION_DB / -20) * np.exp(1j * PHASE_RAD)
    commanded[3] = 0.0  # above the floor
    np.testing.assert_allclose(field[8:48], np.repeat(commanded, 10), rtol=0, atol=np.pi / 256)
    np.testing.assert_allclose(field[:8], 0, atol=1e-6)


def test_the_simulated_display_realises_the_field():
    with shaper_at(DISPLAY) as shaper:
        assert shaper.identify() == "SimulatedSLM panel"
        shaper.start()
        shaper.load(ATTENUATION_DB, PHASE_RAD)
        slm = shaper._display._slm
        check_field(slm)
        shaper.shutdown()
        assert not np.asarray(slm.display).any()


def listens(port: int) -> bool:
    """Say whether the server, which does not tell when it is ready, can be connected to."""
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def remote() -> Iterator[tuple[int, object]]:
    """Yield the port and the display of slmsuite's own server."""
    from slmsuite.hardware.remote import Server
    from slmsuite.hardware.slms.simulated import SimulatedSLM

    class Panel(SimulatedSLM):
        def _set_phase_hw(self, display):
            self.received = np.array(display)

    slm = Panel((48, 64), name="panel")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server([slm], port=port, timeout=0.05, recv_timeout=1, allowlist=["127.0.0.1"])
    thread = threading.Thread(target=server.listen)
    thread.start()
    while not listens(port):
        assert thread.is_alive()
    try:
        yield port, slm
    finally:
        server.stop()
        thread.join()


def test_a_display_behind_slmsuites_server(remote):
    port, slm = remote
    with shaper_at(f"slm-tcp://127.0.0.1:{port}/panel") as shaper:
        shaper.start()
        assert shaper.identify() == "RemoteSLM panel"
        shaper.load(ATTENUATION_DB, PHASE_RAD)
        assert slm.received.any()
        np.testing.assert_array_equal(np.asarray(shaper._display._slm.display), slm.received)
    assert not slm.received.any()


def test_a_server_that_is_not_there_or_has_another_display(remote):
    port, _ = remote
    with pytest.raises(DriverError, match=r"slm: identity: .*'other' is not present"):
        shaper_at(f"slm-tcp://127.0.0.1:{port}/other").start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    with pytest.raises((InstrumentTimeout, ConnectionLost), match="slm: identity"):
        shaper_at(f"slm-tcp://127.0.0.1:{nobody}/panel").start()

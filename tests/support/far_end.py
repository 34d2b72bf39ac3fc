"""A WaveShaper at the far end of a real wire: its firmware in a process of its own, over HTTP.

It outlives whoever drives it, and says whether light leaves it, and since when.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from drivers.mock.faults import AnswerLate, ConnectionDropped, Fault
from drivers.mock.firmware.waveshaper import WaveShaperFirmware
from drivers.row_key import RowKey
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spec import Array, ArraySpec
from lab.bench_config import BenchConfig
from lab.systems.base import PhysicalSystem, SystemDescription

LIMIT_S = 10.0  # the promise is 3 s; machines that run tests may be slow
LINES = 10


class Lamp(PhysicalSystem):
    """Light through a pulse shaper: y is what the shaper says it does with x and theta."""

    def __init__(
        self,
        *,
        name: str,
        shaper: WaveShaperA,
        row_time_s: float,
        announce: Callable[[RowKey], None] | None = None,
    ) -> None:
        super().__init__(announce)
        self.shaper, self.instruments = shaper, (shaper,)
        x = ArraySpec("x", "dB", (1,), 0.0, 30.0)
        theta = ArraySpec("theta", "rad", (1,), -1.0, 1.0)
        y = ArraySpec("y", "1", (2,), -100.0, 100.0)
        self.description = SystemDescription(name, x, theta, y, row_time_s)

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        self.shaper.load(np.repeat(x, LINES), np.repeat(theta, LINES))
        profile = self.shaper.profile()
        if not (profile.port == 1).any():
            return np.array([-1.0, -1.0]), False  # dark
        return np.array([profile.attenuation_db[-1], profile.phase_rad[-1]]), False


class FarEnd:
    """The test's view of the instrument: not through the lab, but beside it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=2 * LIMIT_S, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def light(self) -> None:
        """Let all light through, as whoever crashed before may have left it."""
        self._http.post("/waveshaper/loadprofile", json={"type": "transmit", "port": 1})

    def state(self) -> dict[str, Any]:
        """Return blocked, changed_s (monotonic, of the whole machine), profiles, out_of_limits."""
        return dict(self._http.get("/admin").json())

    def wait_until(self, *, blocked: bool) -> dict[str, Any]:
        """Return the state once light is blocked (or leaves); fail after `LIMIT_S`."""
        state = dict(self._http.get(f"/admin/{'blocked' if blocked else 'lit'}").json())
        assert state["blocked"] is blocked, f"still {state} after {LIMIT_S} s"
        return state

    def inject(self, fault: Fault, on: str = "") -> None:
        self._http.post("/admin/inject", json={"fault": fault, "on": on})

    def cut(self) -> None:
        """End every connection now, whatever is on it."""
        self._http.post("/admin/cut")

    def bench(self, **changes: Any) -> BenchConfig:
        """Return a bench of this instrument alone."""
        shaper = {
            "driver": "WaveShaperA",
            "address": self.url,
            "settings": {"lines": LINES},
            "row_time_s": 0.01,
        }
        lamp = {"system": "far_end:Lamp", "instruments": {"shaper": "shaper"}}
        plain = {"name": "far", "instruments": {"shaper": shaper}, "systems": {"lamp": lamp}}
        return BenchConfig.model_validate({**plain, **changes})

    def bench_file(self, folder: Path, **values: object) -> Path:
        """Write such a bench to a file."""
        top = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        path = folder / "far.toml"
        path.write_text(
            f'name = "far"\n{top}[instruments.shaper]\ndriver = "WaveShaperA"\n'
            f'address = "{self.url}"\nsettings = {{ lines = {LINES} }}\nrow_time_s = 0.01\n'
            '[systems.lamp]\nsystem = "far_end:Lamp"\ninstruments = { shaper = "shaper" }\n'
        )
        return path


@contextmanager
def open_far_end() -> Iterator[FarEnd]:
    """Start the instrument's process, and end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "far_end"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            far = FarEnd(f"http://127.0.0.1:{int(process.stdout.readline())}")
            try:
                yield far
            finally:
                far.close()
        finally:
            process.kill()


class _Instrument:
    def __init__(self) -> None:
        self.firmware = WaveShaperFirmware(lambda frequencies, light: None)
        self.changed_s = time.monotonic()
        self.news = threading.Condition()
        self.connections: set[socket.socket] = set()

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path.startswith("/admin"):
            return 200, "application/json", json.dumps(self._admin(path, body)).encode()
        with self.news:
            before = self.firmware.blocked
            answer = self.firmware.handle(method, path, body)
            if self.firmware.blocked != before:
                self.changed_s = time.monotonic()
                self.news.notify_all()
        return answer

    def _admin(self, path: str, body: bytes) -> dict[str, Any]:
        with self.news:
            if path == "/admin/inject":
                wanted = json.loads(body)
                self.firmware.inject(Fault(wanted["fault"]), wanted["on"])
            elif path == "/admin/cut":
                for connection in tuple(self.connections):
                    with suppress(OSError):  # closed meanwhile
                        connection.shutdown(socket.SHUT_RDWR)
            elif path != "/admin":
                blocked = path == "/admin/blocked"
                self.news.wait_for(lambda: self.firmware.blocked is blocked, LIMIT_S)
            return {
                "blocked": self.firmware.blocked,
                "changed_s": self.changed_s,
                "profiles": self.firmware.profiles_loaded,
                "out_of_limits": self.firmware.out_of_limits,
            }


def _handler(instrument: _Instrument) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            if not self.path.startswith("/admin"):
                instrument.connections.add(self.connection)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                status, kind, content = instrument.handle(self.command, self.path, body)
            except (ConnectionDropped, AnswerLate):
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815  # the names that http.server calls

        def finish(self) -> None:
            instrument.connections.discard(self.connection)
            super().finish()

        def log_message(self, *_: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:  # the peer was killed
                self.close_connection = True

    return Handler


def main() -> None:
    """Serve until killed; print the port."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(_Instrument()))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""The tests of a lab's own bench, run on a simulated one: over real sockets, and in memory."""

import os
import re
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from documentation import ROOT
from drivers.mock.optics import OpticalPlant
from drivers.mock.rig import optical_rig


def run(bench, *options):
    """Run the hardware tests in a process of their own; return exit status and output."""
    command = [sys.executable, "-m", "pytest", "tests/hardware", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--bench", str(bench), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def outcomes(output):
    """Return how many tests passed, failed, were skipped, ...; by the last line."""
    return {what: int(count) for count, what in re.findall(r"(\d+) (\w+)[, ]", output[-200:])}


@pytest.fixture
def sockets():
    """Serve a shaper and a spectrometer in front of one plant; return their ports."""
    rig = optical_rig(OpticalPlant())
    shaper, spectrometer = (rig.instruments[name] for name in ("shaper", "spectrometer"))

    class Shaper(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, kind, answer = shaper.handle(self.command, self.path, body)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_):
            pass

    class Spectrometer(socketserver.BaseRequestHandler):
        def handle(self):
            session = spectrometer.connect()
            while data := self.request.recv(65536):
                self.request.sendall(session.receive(data))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # the line was cut, as it should be

    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), Shaper),
        Server(("127.0.0.1", 0), Spectrometer),
    ]
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    yield [server.server_address[1] for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def lab(sockets, tmp_path):
    """Return the file of a bench with the optics at those ports, circuit and plate in memory."""
    http, tcp = sockets
    text = (ROOT / "bench.toml").read_text(encoding="utf-8")
    text = re.sub(r"^\[rigs.*?(?=^\[instr)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = text.replace("mock://optics/shaper", f"http://127.0.0.1:{http}")
    text = text.replace("mock://optics/spectrometer", f"TCPIP0::127.0.0.1::{tcp}::SOCKET")
    text = text.replace("row_time_s = 0.5 ", "row_time_s = 0.02 ")
    for name in ("bench-circuit.toml", "bench-plate.toml"):
        more = (ROOT / name).read_text(encoding="utf-8")
        text += re.sub(r"^name = .*$", "", more, flags=re.MULTILINE)
    file = tmp_path / "lab.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_simulated_lab_passes_and_its_figures_are_printed(lab):
    status, output = run(lab)
    assert status == 0, output
    counted = outcomes(output)
    assert counted.pop("passed") > 30
    assert counted.keys() == {"skipped"}, output  # what an instrument has not
    for figure in ("shaper: WaveShaper", "optics: dark", "plate: noise", "circuit: a row takes"):
        assert f"\n{figure}" in output
    for instrument in ("shaper", "spectrometer"):
        assert f"\n{instrument}: a cut line was told and mended" in output


def test_a_bench_that_is_not_as_its_file_says_fails(lab):
    text = lab.read_text(encoding="utf-8")
    lab.write_text(text.replace("YOKOGAWA,AQ6370", "YOKOGAWA,AQ6375"), encoding="utf-8")
    status, output = run(lab, "-k", "who_the_bench_file_says")
    assert status == 1, output
    counted = outcomes(output)
    assert (counted["failed"], counted["passed"]) == (1, 3)
    assert "'YOKOGAWA,AQ6370D,91X000001,02.01' answers, not /YOKOGAWA,AQ6375/" in output

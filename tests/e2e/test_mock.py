"""The simulated bench as a process, by itself and with the service as docker-compose.yml says."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from compose import Compose, Service, read_compose
from documentation import ROOT
from lab.bench_config import load_bench
from lab.client import Client
from lab.rigs import on_sockets

LIMIT_S = 60.0  # nothing here lasts so long unless it hangs
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
COMPOSE = ROOT / "docker-compose.yml"


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command of pnnlab in the project's folder; kill it if it is left over."""
    command = [sys.executable, "-m", "server", *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal, wait for a clean end, return what was said on stderr."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    return errors


# --- the command --------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_where_it_listens_and_ends_by_a_signal(tmp_path, number):
    faults, client = tmp_path / "faults.toml", tmp_path / "client.toml"
    faults.write_text('[[faults]]\ninstrument = "shaper"\nfault = "identity"\n')
    options = ("--json", "--faults", str(faults), "--write", str(client))
    with running("mock", *options) as process:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told = json.loads(line)
        assert told.keys() == {"bench", "admin", "instruments"}
        assert load_bench(client) == on_sockets(
            load_bench(ROOT / "bench.toml"),
            told["admin"],
            {f"mock://optics/{name}": at for name, at in told["instruments"].items()},
        )
        url = told["instruments"]["shaper"]
        with httpx.Client(base_url=url, trust_env=False) as http:  # open until it has ended
            models = [http.get("/waveshaper/devinfo").json()["model"] for _ in range(2)]
            assert models == ["OtherShaper 9", "WaveShaper 1000A"]
            assert ended(process, number) == ""


@POSIX
def test_without_json_it_prints_one_line_for_each_instrument():
    with running("mock", "--bench", "bench-circuit.toml", "--host", "localhost") as process:
        lines = [process.stdout.readline() for _ in range(2)]
        assert re.fullmatch(r"admin +http://localhost:\d+\n", lines[0]), process.communicate()[1]
        assert re.fullmatch(r"daq +mock://circuit/daq \(in memory only: no .*\)\n", lines[1])
        assert ended(process, signal.SIGTERM) == ""


# --- docker-compose.yml -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> Compose:
    return read_compose(COMPOSE)


def test_the_compose_file_fits_its_schema_and_means_something(compose):
    assert list(compose.services) == ["bench", "pnnlab"]
    for service in compose.services.values():
        assert (service.build, service.image, service.init) == (".", "pnnlab", True)
        assert service.healthcheck.test[0] == "CMD"
    assert compose.services["pnnlab"].depends_on["bench"].condition == "service_healthy"
    mounted = [v.split(":")[0] for s in compose.services.values() for v in s.volumes]
    assert mounted == list(compose.volumes) == ["data"]
    image = (ROOT / "Dockerfile").read_text()
    assert compose.services["pnnlab"].volumes[0].split(":")[1] in re.findall(r"VOLUME (.+)", image)


def test_the_compose_bench_is_the_simulated_one_on_the_sockets_of_its_container():
    addresses = {
        "mock://optics/shaper": "http://bench:9001",
        "mock://optics/spectrometer": "TCPIP0::bench::9002::SOCKET",
    }
    expected = on_sockets(load_bench(ROOT / "bench.toml"), "http://bench:9000", addresses)
    assert load_bench(ROOT / "bench-compose.toml") == expected


def free_ports(count: int) -> int:
    """Return the first of so many neighbouring ports that are free."""
    for first in range(21_000, 60_000, 97):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")


class OnLoopback:
    """The compose file's words with its ports and names as they are on this machine's loopback."""

    def __init__(self, folder: Path) -> None:
        first = free_ports(4)
        ports = {str(9000 + i): str(first + i) for i in range(3)} | {"8000": str(first + 3)}
        self._words = ports | {"0.0.0.0": "127.0.0.1", "//bench:": "//127.0.0.1:"}
        self._words |= {"::bench::": "::127.0.0.1::"}
        self._bench = folder / "bench-compose.toml"
        self._bench.write_text(self.rewritten((ROOT / "bench-compose.toml").read_text()))
        self.admin = f"http://127.0.0.1:{first}"
        self.url = f"http://127.0.0.1:{first + 3}"

    def rewritten(self, text: str) -> str:
        words = "|".join(map(re.escape, self._words))
        return re.sub(words, lambda found: self._words[found[0]], text)

    def command(self, service: Service) -> Sequence[str]:
        program, *words = [self.rewritten(word) for word in service.command]
        assert program == "pnnlab"
        return [str(self._bench) if word == self._bench.name else word for word in words]

    def healthy(self, service: Service) -> bool:
        _, python, *words = service.healthcheck.test
        assert python == "python"
        check = [sys.executable, *map(self.rewritten, words)]
        return subprocess.run(check, capture_output=True, timeout=LIMIT_S).returncode == 0


@POSIX
def test_the_two_services_work_together_as_the_compose_file_starts_them(compose, tmp_path):
    here = OnLoopback(tmp_path)
    bench, service = compose.services["bench"], compose.services["pnnlab"]
    assert not here.healthy(bench)
    with running(*here.command(bench)) as mock:
        assert mock.stdout.readline().startswith("admin"), mock.communicate()[1]
        assert here.healthy(bench)
        assert not here.healthy(service)
        data = ("--data", str(tmp_path / "data"))  # the volume
        with running(*here.command(service), *data) as serve:
            assert "ready at" in serve.stdout.readline(), serve.communicate()[1]
            assert here.healthy(service)
            x = np.linspace(-0.5, 1, 100).reshape(2, 50)
            with Client(here.url) as client:
                y = client.measure("optics", x, np.ones((2, 50)))["y"]
            assert y.shape == (2, 50)
            assert y.max() > 0
            states = httpx.get(f"{here.admin}/rigs/optics", trust_env=False).json()
            assert states["spectrometer"]["sweeps"] == states["shaper"]["profiles_loaded"] == 2
            assert states["shaper"]["out_of_limits"] == 0
            assert states["shaper"]["safe"] is False
            assert ended(serve, signal.SIGTERM) == ""
        states = httpx.get(f"{here.admin}/rigs/optics", trust_env=False).json()
        assert all(state["safe"] for state in states.values())
        assert ended(mock, signal.SIGTERM) == ""

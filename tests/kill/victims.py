"""The processes that are killed: a service, its trainers, and the simulated bench on sockets."""

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.client import Client

Target = Literal["service", "trainer", "bench"]
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 600.0  # nothing takes so long unless it hangs
_PORTS = range(21_000, 32_000)  # that no outgoing connection is given


class Program:
    """A command of pnnlab that is killed and started again with the same words."""

    def __init__(self, *words: str, log: Path) -> None:
        """Prepare `pnnlab WORDS`; what it says on stderr goes to the end of `log`."""
        self._words, self._log = words, log
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Get its number; 0 while it is not there."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, unless it is there; see `ready`."""
        if self._process is None:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "server", *self._words],
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=ROOT,
                )

    def ready(self) -> str:
        """Wait for its first line, which says that it is ready; raise RuntimeError."""
        if self._process is None or self._process.stdout is None:
            raise RuntimeError(f"{self._words[0]} was not started")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._words[0]} did not start:\n{self._log.read_text()[-2000:]}")
        return line

    def end(self, how: signal.Signals) -> None:
        """Send it a signal and wait until it is gone; RuntimeError where a gentle one fails."""
        if self._process is None:
            return
        with self._process as process:
            process.send_signal(how)
            process.communicate(timeout=LIMIT_S)
        self._process = None
        if how == signal.SIGTERM and process.returncode:
            said = self._log.read_text()[-2000:]
            raise RuntimeError(f"{self._words[0]} ended with {process.returncode}:\n{said}")


@dataclass(frozen=True)
class Lab:
    """A service on a folder of its own and, if asked for, its bench on sockets; see `open_lab`."""

    folder: Path
    url: str
    admin_url: str  # of the bench
    service: Program
    bench: Program
    client: Client

    def trainers(self) -> list[int]:
        """Return the numbers of the processes in which jobs compute."""
        parents = _parents()
        cradles = {p for p in parents if parents[p] == self.service.pid and _is_cradle(p)}
        return [pid for pid, parent in parents.items() if parent in cradles]


@contextmanager
def open_lab(
    folder: Path, *, on_sockets: bool = False, database: str | None = None
) -> Iterator[Lab]:
    """Start both, and kill them at the end; database: a URL, else SQLite. Raises RuntimeError.

    Both are found at the same addresses however often they are started.
    """
    first = free_ports(4)
    url, file = f"http://127.0.0.1:{first}", folder / "bench.toml"
    bench = Program(
        *("mock", "--bench", str(ROOT / "bench.toml"), "--port", str(first + 1)),
        *("--write", str(file)),
        log=folder / "bench.log",
    )
    words = ["serve", "--port", str(first), "--data", str(folder)]
    words += ["--database", database, "--host-name", "here"] if database else []
    words += ["--bench", str(file if on_sockets else ROOT / "bench.toml")]
    service = Program(*words, log=folder / "service.log")
    with ExitStack() as stack:
        for program in (bench, service) if on_sockets else (service,):
            stack.callback(program.end, signal.SIGKILL)
            program.start()
            program.ready()
        client = stack.enter_context(Client(url))
        yield Lab(folder, url, f"http://127.0.0.1:{first + 1}", service, bench, client)


def kill_program(program: Program, rng: random.Random, *, while_starting: float) -> list[str]:
    """Kill, now and then gently, and start again; return how, "" for SIGKILL.

    while_starting: the share of times at which it is killed once more while it starts.
    """
    how = rng.choice([signal.SIGKILL] * 4 + [signal.SIGTERM])
    program.end(how)
    said = ["" if how == signal.SIGKILL else " (TERM)"]
    program.start()
    if rng.random() < while_starting:
        time.sleep(rng.uniform(0, 3))
        program.end(signal.SIGKILL)
        said.append("")
        program.start()
    program.ready()
    return said


def free_ports(count: int) -> int:
    """Return the first of so many neighbouring ports that are free."""
    for _ in range(1000):
        first = random.choice(_PORTS)
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")


def _parents() -> dict[int, int]:
    """Return all processes with their parents."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    return found


def _is_cradle(pid: int) -> bool:
    try:
        return b"lab.jobs.cradle" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

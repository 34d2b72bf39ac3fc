"""Several services that share a PostgreSQL, as processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PNNLAB = [sys.executable, "-m", "server"]
SECRET = "a-secret-of-the-tests-alone"


class Cluster:
    """The services of one database; for `contextlib.closing`."""

    def __init__(self, database_url: str, folder: Path) -> None:
        """Start none yet."""
        self.database_url, self.folder = database_url, folder
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def close(self) -> None:
        """Kill all of them."""
        for name in list(self.processes):
            self.kill(name)

    def bench(self, name: str = "bench", file: Path = ROOT / "bench.toml") -> str:
        """Start a service with a bench, which works on its own jobs only; return its URL."""
        options = ("--bench", str(file), "--port", "0", "--own-jobs")
        return self._start(name, "serve", *options).split()[-1]

    def front(self, name: str = "front") -> str:
        """Start a service without one and return its URL."""
        return self._start(name, "serve", "--no-bench", "--port", "0").split()[-1]

    def workers(self, *names: str, options: Sequence[str] = ()) -> None:
        """Start workers, all at once."""
        for name in names:
            self.processes[name] = self.launch(name, "worker", *options)
        for name in names:
            self._ready(name)

    def launch(self, name: str, command: str, *options: str) -> subprocess.Popen[str]:
        """Start a process, without waiting for it to be ready."""
        where = self.folder / name
        with (self.folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                [*PNNLAB, command, "--data", str(where), "--host-name", name, *options],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PNNLAB_DATABASE_URL": self.database_url,
                    "PNNLAB_SECRET": SECRET,
                    "OMP_NUM_THREADS": "1",
                },
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def kill(self, name: str) -> None:
        """Kill a process, frozen or not, and wait for its end."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def log(self, name: str) -> str:
        """Return what a process has logged."""
        return (self.folder / f"{name}.log").read_text()

    def _start(self, name: str, command: str, *options: str) -> str:
        self.processes[name] = self.launch(name, command, *options)
        return self._ready(name)

    def _ready(self, name: str) -> str:
        """Wait until a process is ready, and return the line that says so."""
        output = self.processes[name].stdout
        if output is None:
            raise TypeError("a process has no output")
        ready = output.readline()
        if "ready" not in ready:
            raise RuntimeError(f"{name} did not start: {self.log(name)}")
        return ready

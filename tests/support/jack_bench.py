"""A JACK server without a sound interface, and a plate at the far end of it, each its own process.

The server has a name of its own and is ended by its process id, so it harms no other. A period is
2048 frames, so that a busy machine keeps up.
"""

import ctypes.util
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

DEBIAN_PACKAGES = (Path(__file__).parents[2] / ".ci" / "debian-packages").read_text().split()
RATE_HZ = 48_000


def missing() -> str:
    """Return what has to be installed before a server can run, nothing if all is there."""
    lacks = [name for name in ("sounddevice", "jack") if importlib.util.find_spec(name) is None]
    lacks += [f"lib{lib}" for lib in ("portaudio", "jack") if not ctypes.util.find_library(lib)]
    lacks += [] if shutil.which("jackd") else ["jackd"]
    return ", ".join(lacks)


class JackBench:
    """A server, and a plate whose two outputs and inputs are an interface of the name `plate`."""

    def __init__(self, name: str, folder: Path) -> None:
        """Start both; name: of the server, which no other on this machine may have."""
        self._name = name
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start a server and a plate."""
        dummy = ["-d", "dummy", "-r", str(RATE_HZ), "-p", "2048"]
        self._server = subprocess.Popen(
            ["jackd", "--no-realtime", "-n", self._name, *dummy],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._plate = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("jack_plate.py"), self._name],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def kill_server(self) -> None:
        """End the server at once; who is connected learns of it as of a pulled plug."""
        self._server.kill()
        self._server.wait()
        self._plate.kill()
        self._plate.communicate()

    def stall(self) -> None:
        """Let the plate be late once, by 0.3 s, in the next block that it hears something in."""
        self._ask("stall")

    def forget(self) -> None:
        """Forget what was heard so far."""
        self._ask("forget")

    def wait_for_sound(self) -> None:
        """Return when something has been heard since."""
        if not self._ask("sound")["ok"]:
            raise RuntimeError("nothing was heard for 10 s")

    def heard(self) -> tuple[Any, int]:
        """Return what the speaker got since, to 0.2 s of silence after it; and xruns meanwhile."""
        file = self._folder / "heard.npy"
        answer = self._ask("heard", str(file))
        if not answer["ok"]:
            raise RuntimeError("no silence for 10 s")
        return np.load(file), answer["xruns"]

    def close(self) -> None:
        """End both; a server waits for clients that do not say goodbye."""
        self._plate.communicate()
        self._server.terminate()
        self._server.wait()

    def _ask(self, *words: str) -> Any:
        stdin: Any = self._plate.stdin
        stdin.write(" ".join(words) + "\n")
        stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        stdout: Any = self._plate.stdout
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the plate on JACK ended with status {self._plate.wait()}")
        return json.loads(line)

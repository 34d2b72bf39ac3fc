"""Where trainer processes come from, for the process that wants them."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from lab.errors import Stopped, TrainerDied
from lab.systems.base import never

CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"
"""Whether there are trainer processes here; on macOS a process with torch in it must not fork."""
_ASK_EVERY_S = 0.1  # whether who waits for a process still wants it


class Trainer:
    """A trainer process; whoever has it calls `end`.

    line: both ways to it.
    """

    def __init__(self, line: Connection, status: int, pid: int) -> None:
        self.line, self.pid = line, pid
        self._status = status
        self._ending = threading.Lock()
        self._how: str | None = None

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does; from any thread, idempotent."""
        with self._ending:
            # once its exit code is there, its number may be another's
            if self._how is None and not wait([self._status], 0):
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def end(self) -> str:
        """Wait for its end, after `kill` or its last word; return how it ended. Idempotent."""
        if self._how is None:
            with open(self._status, "rb") as status:
                code = status.readline()
            with self._ending:
                self._how = _ended(int(code) if code else None)
            self.line.close()
        return self._how


class Nursery:
    """Start trainer processes quickly, from a process (`lab.jobs.cradle`) that has all imported.

    Thread-safe. Whoever makes it closes it; `start` before instruments and sockets are opened is
    early, but none of them is inherited in any case.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._lock = threading.Lock()
        self._cradle: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start what trainers come from, unless it runs; returns before it is ready."""
        with self._lock:
            self._started()

    def trainer(self, stopped: Callable[[], bool] = never) -> Trainer:
        """Return a new trainer process; raise TrainerDied if it cannot be started.

        Raises Stopped if `stopped` says so while it waits for what processes come from.
        """
        for _ in range(2):  # that may have died meanwhile
            with self._lock:
                control = self._started()
                asked = _ask(control)
            found = None if asked is None else _answer(*asked, stopped)
            if found is not None:
                return found
            with self._lock:
                if self._control is control:
                    self._stop()
        raise TrainerDied("a trainer process could not be started; the service's log may say why")

    def close(self) -> None:
        """Let it end; idempotent. Trainers that are left go on until their lines end."""
        with self._lock:
            self._stop()

    def _started(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair()
            with theirs:
                # what can be imported here, and nothing else; see `lab.guarding`
                self._cradle = subprocess.Popen(
                    [sys.executable, "-P", "-m", "lab.jobs.cradle", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # signals of the terminal are not for it
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )
            self._control = ours
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._cradle is not None:
            self._cradle.kill()
            self._cradle.wait()
            self._cradle = None


def _ask(control: socket.socket) -> tuple[Connection, int] | None:
    """Ask for a process; return the line to it and where its number will come. None: nobody."""
    ours, theirs = socket.socketpair()
    line = Connection(ours.detach())
    heard, told = os.pipe()
    try:
        socket.send_fds(control, [b"t"], [theirs.fileno(), told])
    except OSError:
        line.close()
        os.close(heard)
        return None
    finally:
        theirs.close()
        os.close(told)
    return line, heard


def _answer(line: Connection, heard: int, stopped: Callable[[], bool]) -> Trainer | None:
    """Wait for the process; return it, None if it does not come; raise Stopped."""
    pid = b""
    try:
        while not wait([heard], _ASK_EVERY_S):
            if stopped():
                raise Stopped("stopped before its process had started")
        pid = _first_line(heard)
    finally:
        if not pid:
            line.close()  # should it come still, it ends by this
            os.close(heard)
    return Trainer(line, heard, int(pid)) if pid else None


def _first_line(fd: int) -> bytes:
    """Read to the end of the line and no further."""
    found = b""
    while (byte := os.read(fd, 1)) not in (b"", b"\n"):
        found += byte
    return found


def _ended(code: int | None) -> str:
    if code is None:
        return "nobody saw how"
    if code >= 0:
        return f"exit code {code}"
    hint = ": out of memory?" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code}{hint}"

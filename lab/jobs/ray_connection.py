"""A service's connection to a Ray cluster, which another process has for it."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from socket import SHUT_RDWR, socketpair

from lab.jobs.told_errors import ToldError

_GOODBYE_S = 0.3  # then it is killed: Ray ends what it has started, here and on other nodes


class RayTask:
    """A trainer process as the cluster sees it; ended: then there is `how`, and its own error."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        """Have it ended, in any state, by `cancel`."""
        self.cancel = cancel
        self.ended = threading.Event()
        self.how = ""
        self.error: Exception | None = None

    def end(self, how: str, error: Exception | None = None) -> None:
        """Note how it has ended."""
        self.how = how if error is None else f"{type(error).__name__}: {error}"
        self.error = error
        self.ended.set()


class RayConnection:
    """The process that is connected to the cluster (`lab.jobs.ray_cradle`), and what it tells.

    known: then there is either `host`, at which the cluster's nodes reach this machine, or
    `refused`, why there is no connection. gone: the process has ended.
    """

    def __init__(self, address: str) -> None:
        """Start to connect."""
        self.known = threading.Event()
        self.host = self.refused = ""
        self.gone = False
        self._lock = threading.Lock()
        self._tasks: dict[int, RayTask] = {}
        self._begun = 0
        self._socket, theirs = socketpair()
        with theirs:
            # what can be imported here, and nothing else; see `lab.guarding`
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lab.jobs.ray_cradle", address, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # Ray tells there what it has told already
                start_new_session=True,  # signals of the terminal are not for it
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._control = Connection(os.dup(self._socket.fileno()))
        self._listener = threading.Thread(target=self._listen, name="ray", daemon=True)
        self._listener.start()

    def begin(self, *arguments: object) -> RayTask:
        """Have a process started that does `lab.jobs.ray_trainer.be_trainer(*arguments)`."""
        with self._lock:
            self._begun += 1
            number = self._begun
            task = RayTask(lambda: self._say("end", number))
            self._tasks[number] = task
        self._say("start", number, arguments)
        if self.gone:  # maybe before the task was there
            self._end_tasks()
        return task

    def close(self) -> None:
        """Let the process end, and all that it has started."""
        with suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)
        self._listener.join()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self._control.close()
            self._socket.close()

    def _say(self, *words: object) -> None:
        with self._lock, suppress(OSError):  # its end is told by its line
            self._control.send(words)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._hear(*self._control.recv())
        self.gone = True
        self.refused = self.refused or "the process that is connected to the Ray cluster has ended"
        self.known.set()
        self._end_tasks()

    def _hear(self, what: str, *about: object) -> None:
        match what, *about:
            case "ready", str(host):
                self.host = host
                self.known.set()
            case "refused", str(reason):
                self.refused = reason
                self.known.set()
            case "ended", int(number), str(how), error:
                with self._lock:
                    task = self._tasks.pop(number)
                task.end(how, error.rebuilt() if isinstance(error, ToldError) else None)

    def _end_tasks(self) -> None:
        with self._lock:
            left, self._tasks = self._tasks, {}
        for task in left.values():
            task.end(self.refused)

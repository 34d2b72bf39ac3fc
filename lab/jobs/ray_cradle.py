"""The process that is connected to a Ray cluster, where it has trainer processes started.

    python -P -m lab.jobs.ray_cradle ADDRESS FD

Ray ends the process that uses it when its cluster goes away: hence not the service itself. Over
the socket FD it hears of tasks (start, number, arguments) and (end, number), and tells (ready, the
address by which the cluster's nodes reach this machine), of each task (ended, number, how, its
error), and last (refused, why it is not connected). It goes when its parent goes or the cluster is
lost, and its tasks with it.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from lab.errors import ConfigError
from lab.jobs.ray_trainer import be_trainer
from lab.jobs.told_errors import tell
from lab.ray_cluster import LOCAL, open_cluster

_LOOPBACK = "127.0.0.1"
_LOOK_EVERY_S = 5.0  # whether this machine still belongs to the cluster
_SILENT_S = 60.0  # without an answer, until the cluster is lost
_LOST = 1  # exit code


def main() -> None:
    """Serve the parent until it goes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # not SIG_IGN, which the processes of a cluster would inherit
        signal.signal(signal.Signals[name], lambda *_: None)
    address = sys.argv[1]
    with Connection(int(sys.argv[2])) as control, suppress(EOFError, OSError):
        try:
            with open_cluster(address) as ray:
                RayCradle(ray, control, address).serve()
        except ConfigError as error:
            control.send(("refused", str(error)))


class RayCradle:
    """Start tasks, and tell how each ended."""

    def __init__(self, ray: Any, control: Connection, address: str) -> None:
        """Take requests from `control`."""
        self._ray, self._control, self._address = ray, control, address
        # a process of its own each, which the service replaces when it dies
        self._task = ray.remote(num_cpus=1, max_calls=1, max_retries=0)(be_trainer)
        self._node = ray.get_runtime_context().get_node_id()
        self._telling = threading.Lock()
        self._running: dict[int, Any] = {}
        self._over = threading.Event()

    def serve(self) -> None:
        """Serve until the parent closes its end, which raises EOFError."""
        here = self._here()
        self._tell("ready", _LOOPBACK if self._address == LOCAL else here)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        try:
            while True:
                what, number, *arguments = self._control.recv()
                if what == "start":
                    self._start(number, *arguments)
                elif number in self._running:
                    self._ray.cancel(self._running[number], force=True)
        finally:
            self._over.set()

    def _here(self) -> str:
        """Return this machine's address in the cluster; raise LookupError: not one of its nodes."""
        for node in self._ray.nodes():
            if node["NodeID"] == self._node and node["Alive"]:
                return str(node["NodeManagerAddress"])
        raise LookupError("this machine is none of its nodes any more")

    def _watch(self) -> None:
        """End this process, which the service replaces, when the cluster is lost."""
        while not self._over.wait(_LOOK_EVERY_S):
            alarm = threading.Timer(_SILENT_S, self._lose, [f"no answer for {_SILENT_S:g} s"])
            alarm.daemon = True
            alarm.start()
            try:
                self._here()
            except Exception as error:  # whatever Ray raises
                self._lose(str(error))
            alarm.cancel()

    def _lose(self, why: str) -> None:
        if not self._over.is_set():
            self._tell("refused", f"ray: the cluster at '{self._address}' is lost: {why}")
            os._exit(_LOST)

    def _start(self, number: int, arguments: tuple[Any, ...]) -> None:
        task = self._running[number] = self._task.remote(*arguments)
        task.future().add_done_callback(partial(self._ended, number))

    def _ended(self, number: int, task: Any) -> None:
        """Tell of an end, in a thread of Ray's."""
        self._running.pop(number, None)
        error = task.exception()
        own = getattr(error, "cause", None)  # without Ray's trace
        self._tell("ended", number, _how(error), tell(own) if isinstance(own, Exception) else None)

    def _tell(self, *words: Any) -> None:
        with self._telling:
            self._control.send(words)


def _how(error: Exception | None) -> str:
    if error is None:
        return "it has ended"
    return f"{type(error).__name__}: {error}".splitlines()[0]


if __name__ == "__main__":
    main()

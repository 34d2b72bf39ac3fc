"""Trainer processes on a Ray cluster, for the service that wants them: one CPU of it each."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from socket import socket

from lab.errors import ConfigError, Stopped, TrainerDied
from lab.jobs.far_line import FarLine, accepted, listen_for_one
from lab.jobs.ray_connection import RayConnection, RayTask
from lab.ray_cluster import check_address, software
from lab.secret import secret_of_environment
from lab.systems.base import never

log = logging.getLogger(__name__)

_ASK_EVERY_S = 0.1  # whether who waits still wants it
_SAY_AFTER_S = 10.0  # that a process does not come
_AGAIN_S = 5.0  # to a cluster that could not be reached
_DEATHS = 3  # of processes in a row before they had connected
_BY_ITSELF_S = 2.0  # a process ends whose line is cut
_END_S = 30.0  # until Ray knows that a process has ended whose node is out of reach
_LEFT_S = 1.0  # the same, when the job is to end


class RayNursery:
    """Have trainer processes started on the cluster at an address; see `lab.ray_cluster`.

    They connect to this process, which listens where the cluster's nodes reach it. Thread-safe.
    Whoever makes it closes it.
    """

    def __init__(self, address: str) -> None:
        """Start nothing yet; raise ConfigError for what cannot be an address."""
        check_address(address)
        self._address = address
        self._lock = threading.Lock()
        self._cluster: RayConnection | None = None
        self._away = False

    def start(self) -> None:
        """Connect to the cluster; raise ConfigError where that is not possible."""
        with self._lock:
            cluster = self._cluster = RayConnection(self._address)
        cluster.known.wait()
        if cluster.refused:
            self.close()
            raise ConfigError(cluster.refused)

    def trainer(self, stopped: Callable[[], bool] = never) -> "RayTrainer":
        """Return a new trainer process, as soon as the cluster is there and has a CPU for it.

        Raises TrainerDied if it cannot be started or does not reach this process, ConfigError if
        its node has other software, Stopped if `stopped` says so while it waits.
        """
        for _ in range(_DEATHS):
            cluster = self._connected(stopped)
            task, line = self._begun(cluster, stopped)
            if line is not None:
                return RayTrainer(line, task, stopped)
            if isinstance(task.error, ConfigError):
                raise task.error
        raise TrainerDied(f"no trainer process could be started on the Ray cluster: {task.how}")

    def close(self) -> None:
        """Disconnect, which ends the trainers that are left; idempotent."""
        with self._lock:
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None

    def _connected(self, stopped: Callable[[], bool]) -> RayConnection:
        while True:
            with self._lock:
                if self._cluster is not None and self._cluster.gone:
                    self._cluster.close()
                    self._cluster = None
                cluster = self._cluster = self._cluster or RayConnection(self._address)
            while not cluster.known.wait(_ASK_EVERY_S):
                _check(stopped)
            if not cluster.refused:
                self._say_away("")
                return cluster
            self._say_away(cluster.refused)
            with self._lock:
                if self._cluster is cluster:
                    cluster.close()
                    self._cluster = None
            _pause(_AGAIN_S, stopped)

    def _say_away(self, why: str) -> None:
        with self._lock:
            before, self._away = self._away, bool(why)
        if why and not before:
            log.warning("jobs wait for the Ray cluster: %s", why)
        elif before and not why:
            log.warning("the Ray cluster at '%s' is there again", self._address)

    def _begun(
        self, cluster: RayConnection, stopped: Callable[[], bool]
    ) -> tuple[RayTask, FarLine | None]:
        """Have a process started and wait for it; without a line: it ended before."""
        key = secrets.token_bytes(32)
        with _listening(cluster.host) as listener:
            host, port = listener.getsockname()[:2]
            task = cluster.begin(host, port, key, software())
            try:
                return task, _line_to(task, listener, key, stopped, self._address)
            except BaseException:
                task.cancel()
                raise


class RayTrainer:
    """A trainer process on a cluster; see `lab.jobs.trainers.Trainer`."""

    def __init__(self, line: FarLine, task: RayTask, stopped: Callable[[], bool]) -> None:
        """Take over its line; stopped: whether the job is to end."""
        self.line = line.connection
        self._line, self._task, self._stopped = line, task, stopped
        self._ending = threading.Lock()
        self._ended = False

    def kill(self) -> None:
        """Cut its line, by which it ends at once; from any thread, idempotent."""
        with self._ending:
            if not self._ended:
                self._line.cut()

    def end(self) -> str:
        """Wait for its end, after `kill` or its last word; return how it ended. Idempotent.

        One that is too busy to notice is ended by Ray. It does not wait for ever for a node that is
        out of reach, where a process ends by its line's end.
        """
        if not self._waited(_BY_ITSELF_S, 0.0):
            self._task.cancel()
            self._waited(_END_S, _LEFT_S)
        with self._ending:
            if not self._ended:
                self._ended = True
                self._line.close()
        return self._task.how or "nobody saw how"

    def _waited(self, most_s: float, stopped_s: float) -> bool:
        """Wait until it has ended, for so long, less when the job is to end; say whether it has."""
        began_s = time.monotonic()
        while not self._task.ended.wait(_ASK_EVERY_S):
            if time.monotonic() - began_s > (stopped_s if self._stopped() else most_s):
                return False
        return True


def _listening(host: str) -> socket:
    try:
        return listen_for_one(host)
    except OSError as error:
        raise ConfigError(
            f"ray: cannot listen at {host}, where the cluster expects this machine: {error}"
        ) from error


def _line_to(
    task: RayTask, listener: socket, key: bytes, stopped: Callable[[], bool], address: str
) -> FarLine | None:
    """Wait for a process to connect, and greet it; None: it has ended; raise Stopped."""
    greeting = secret_of_environment()
    began_s, said = time.monotonic(), False
    while not task.ended.is_set():
        _check(stopped)
        line = None
        if wait([listener], _ASK_EVERY_S):
            line = accepted(listener, key, greeting)
        waited_s = time.monotonic() - began_s
        if line is not None:
            if said:
                log.warning("a job that waited %.0f s for a CPU of Ray's computes now", waited_s)
            return line
        if waited_s > _SAY_AFTER_S and not said:
            said = True
            log.warning("a job waits for a free CPU of the Ray cluster at '%s'", address)
    return None


def _check(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Stopped("stopped before its process had started")


def _pause(seconds: float, stopped: Callable[[], bool]) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        _check(stopped)
        time.sleep(_ASK_EVERY_S)

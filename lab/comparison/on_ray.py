"""Fan the runs of a comparison out over a Ray cluster: the only module that knows Ray.

Every run is a task of one CPU. A run follows from its config and from what all share, so that one
whose process or machine died is simply done again. Needs the extra `ray`.
"""

import os
import platform
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from lab.comparison.local import Work
from lab.comparison.plan import OnProgress, Progress, run_name
from lab.config import TrainConfig
from lab.errors import ConfigError, TrainerDied
from lab.systems.base import never

RETRIES = 3  # of a run whose process died
_COMPUTING = ("pnnlab", "numba", "numpy", "scikit-learn", "torch")
_ADDRESS = re.compile(r"auto|local|[^\s:/]+:\d{1,5}")
_KNOCK_S = 5.0
_LOOK_S = 0.5  # between looks for progress
_LAST_WORD_S = 10.0  # a run waits at most so long until its progress has arrived


@dataclass(frozen=True)
class OnRay:
    """Do runs on the cluster that this process is connected to."""

    ray: Any

    def __call__(
        self, work: Work, configs: Sequence[TrainConfig], common: bytes, on_progress: OnProgress
    ) -> list[dict[str, Any]]:
        """Return the results in the order of the configs; raise the first error of a run.

        A run whose process died is begun anew, at most `RETRIES` times; then TrainerDied is raised.
        """
        desk = self.ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Desk).remote()
        task = self.ray.remote(num_cpus=1, max_retries=RETRIES)(_perform)
        shared, here = self.ray.put(common), _software()
        runs = {task.remote(work, c, shared, here, desk): c for c in configs}
        waiting = list(runs)
        try:
            while waiting:
                ended, waiting = self.ray.wait(waiting, timeout=_LOOK_S)
                for progress in self.ray.get(desk.take.remote()):
                    on_progress(progress)
                for run in ended:
                    self._result(run, runs[run])
            return [self._result(run, config) for run, config in runs.items()]
        finally:
            for run in waiting:
                self.ray.cancel(run, force=True)
            self.ray.kill(desk)

    def _result(self, run: Any, config: TrainConfig) -> dict[str, Any]:
        try:
            result: dict[str, Any] = self.ray.get(run)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None  # its own error: Ray's has a traceback for a message
        except self.ray.exceptions.RayError as error:
            raise TrainerDied(f"{run_name(config)}: {error}") from error
        return result


@contextmanager
def open_ray(address: str) -> Iterator[OnRay]:
    """Connect to a cluster: `auto`, HOST:PORT, or `local`, which starts one on this machine.

    Raises ConfigError where the extra is missing, or where there is no such cluster. Ray is told
    not to report usage.
    """
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(f"ray: '{address}' is neither auto, nor local, nor HOST:PORT")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f'ray: needs `pip install "pnnlab[ray]"` ({error})') from error
    _knock(address)
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        with _own_sigterm():
            ray.init(address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"ray: cannot connect to '{address}': {error}") from error
    try:
        yield OnRay(ray)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise ConfigError where nobody listens, which Ray itself would find out after minutes."""
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), _KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"ray: no cluster at '{address}': {error}") from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces by its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Desk:
    """Where runs tell their progress: an actor."""

    def __init__(self) -> None:
        self._told: list[Progress] = []

    def tell(self, progress: Progress) -> None:
        self._told.append(progress)

    def take(self) -> list[Progress]:
        told, self._told = self._told, []
        return told


def _perform(
    work: Work, config: TrainConfig, common: bytes, expected: dict[str, str], desk: Any
) -> dict[str, Any]:
    """Do one run, in a task; raise ConfigError where other software would give other numbers."""
    import ray

    other = [f"{k} {v}, not {expected[k]}" for k, v in _software().items() if v != expected[k]]
    if other:
        raise ConfigError(f"ray: other software on {platform.node()}: {'; '.join(other)}")
    told: list[Any] = []

    def tell(progress: Progress) -> None:
        told[:] = [desk.tell.remote(progress)]  # the newest only: they arrive in order

    result = work(config, common, tell, never)
    ray.wait(told, timeout=_LAST_WORD_S)
    return result


def _software() -> dict[str, str]:
    """Return the versions of what computes; Ray itself compares Python's and its own."""
    return {name: _version(name) for name in _COMPUTING}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"

"""Fan the runs of a comparison out over a Ray cluster.

Every run is a task of one CPU. A run follows from its config and from what all share, so that one
whose process or machine died is simply done again. Needs the extra `ray`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab.comparison.local import Work
from lab.comparison.plan import OnProgress, Progress, run_name
from lab.config import TrainConfig
from lab.errors import TrainerDied
from lab.ray_cluster import open_cluster, refuse_other_software, software
from lab.systems.base import never

RETRIES = 3  # of a run whose process died
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
        shared, here = self.ray.put(common), software()
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
    """Connect to a cluster; as `lab.ray_cluster.open_cluster`, which raises ConfigError."""
    with open_cluster(address) as ray:
        yield OnRay(ray)


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

    refuse_other_software(expected)
    told: list[Any] = []

    def tell(progress: Progress) -> None:
        told[:] = [desk.tell.remote(progress)]  # the newest only: they arrive in order

    result = work(config, common, tell, never)
    ray.wait(told, timeout=_LAST_WORD_S)
    return result

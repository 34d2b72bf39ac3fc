"""Name the calibration in force after a job that has calibrated."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from lab.errors import Conflict
from lab.jobs.configs import CalibrateConfig
from lab.jobs.live_job import LiveJob
from lab.scheduling.scheduler import HardwareScheduler


def put_in_force(
    job: LiveJob, config: CalibrateConfig, found: dict[str, Any], scheduler: HardwareScheduler
) -> dict[str, Any]:
    """Return a calibration's result with its name, which is in force now if the config says so.

    Raises Conflict where the system is reserved by then.
    """
    name = config.name or f"calibrate-{job.id}"
    if config.apply:
        _on_loop(job, lambda: _apply(scheduler, config.system, name))
    return {**found, "name": name, "applied": config.apply}


def _apply(scheduler: HardwareScheduler, system: str, name: str) -> None:
    held = scheduler.status(system).reservation
    if held is not None:
        raise Conflict(
            f"{system} is reserved by {held.owner}: the calibration in force is not changed"
        )
    scheduler.set_calibration(system, name)


def _on_loop(job: LiveJob, call: Callable[[], None]) -> None:
    """Let the event loop call something and wait for it; raise what it raises."""
    done: Future[None] = Future()

    def tell() -> None:
        try:
            call()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    job.on_loop(tell)
    done.result()

"""Jobs that look at a device and change nothing: calibrate, evaluate.

They are short: one that was interrupted starts from its beginning, with the same row keys.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from lab.apparatus import Apparatus
from lab.bench import Bench
from lab.calibration import calibrate, rows_to_calibrate
from lab.calibration_rows import CalibrationRows
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.errors import ConfigError, Conflict
from lab.jobs.configs import CalibrateConfig, EvaluateConfig
from lab.jobs.live_job import LiveJob
from lab.jobs.state_files import checkpoint_file, load_state
from lab.jobs.store import Store
from lab.retest import Trained, evaluate, rows_to_evaluate
from lab.scheduling.scheduler import HardwareScheduler
from twins.base import frozen

_WITHOUT_PHYSICS = ("identity", "identity_clamped")


def start_anew(job: LiveJob) -> None:
    """Forget what a job told before it was interrupted: it tells it again."""
    job.store.drop_metrics(job.id, 0, job.attempt)
    job.go_on_after(0, 0)


def run_calibration(
    job: LiveJob,
    config: CalibrateConfig,
    rows: CalibrationRows,
    apparatus: Apparatus,
    scheduler: HardwareScheduler,
) -> dict[str, Any]:
    """Calibrate, and name the calibration in force where the config says so.

    It is compared with the newest that had ended when this one first started. Raises Conflict,
    after measuring, where the system is reserved by then.
    """
    before = job.store.last_calibration(config.system, job.started_s)
    job.rows.plan(rows_to_calibrate(config))
    job.rows.start_pace()
    found = calibrate(
        config, rows, apparatus, before=before, on_metric=job.metric, stop=job.stopped
    )
    name = config.name or f"calibrate-{job.id}"
    if config.apply:
        _on_loop(job, lambda: _apply(scheduler, config.system, name))
    return {**found.as_dict(), "name": name, "applied": config.apply}


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


def evaluated_training(config: EvaluateConfig, store: Store) -> TrainConfig:
    """Return the config of the training whose network is to be tested.

    Raises UnknownName, ConfigError where it is no training, another system's, or one without
    physics, and Conflict where it has left no network.
    """
    record = store.job(config.job)
    if record.kind != "train":
        raise ConfigError(f"job: job '{config.job}' is a {record.kind} job: there is no network")
    like = TrainConfig.model_validate(record.config)
    if config.system not in ("", like.system):
        raise ConfigError(
            f"system: job '{config.job}' trained on '{like.system}', not on '{config.system}'"
        )
    if like.control in _WITHOUT_PHYSICS:
        raise ConfigError(f"job: job '{config.job}' trained with control '{like.control}'")
    if record.state != "succeeded":
        raise Conflict(f"job {config.job} has no trained network: it is {record.state}")
    return like


def run_evaluation(
    job: LiveJob,
    config: EvaluateConfig,
    load: Callable[[str], Dataset],
    apparatus: Apparatus,
    bench: Bench,
) -> dict[str, Any]:
    """Test a trained network; raise what `evaluated_training` raises."""
    evaluated_training(config, job.store)
    trained = _trained(config, job.store, bench)
    dataset = load(trained.config.task)
    job.rows.plan(rows_to_evaluate(config, trained.config, dataset))
    job.rows.start_pace()
    found = evaluate(config, trained, dataset, apparatus, on_metric=job.metric, stop=job.stopped)
    return found.as_dict()


def _trained(config: EvaluateConfig, store: Store, bench: Bench) -> Trained:
    state = load_state(store.files, checkpoint_file(config.job))
    like = TrainConfig.model_validate(state["config"])
    twin = bench.new_twin(like.system, state["twin_kind"])
    twin.load_state_dict(state["twin"])
    result = store.result(config.job)
    if result is None:
        raise Conflict(f"job {config.job} has no result")
    return Trained(
        job=config.job,
        config=like,
        classes=tuple(state["classes"]),
        network=state["network"],
        twin=frozen(twin),
        result=result,
    )

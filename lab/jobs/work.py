"""What a job computes: fits a twin, trains a network. Plain blocking torch code.

It runs in a process of its own where there can be one, and reaches the lab through its `Desk`.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from lab.apparatus import Apparatus
from lab.auditing import AuditPoint
from lab.checkpoints import CheckpointFolder
from lab.config import DIGITAL_METHODS, TrainConfig
from lab.datasets import Dataset, load
from lab.datasets.own import UPLOADS
from lab.errors import DataError
from lab.jobs.configs import CalibrateConfig, EvaluateConfig
from lab.jobs.desk import Assignment, Desk
from lab.jobs.desk_files import DeskFiles
from lab.jobs.elsewhere import open_run
from lab.jobs.looking import calibrate_at, evaluate_at
from lab.jobs.records import FitConfig, TwinRecord
from lab.jobs.state_files import (
    checkpoint_file,
    checkpoints_folder,
    load_state,
    state_bytes,
    twin_file,
)
from lab.measure import DeviceMeasure, Run
from lab.recipes import completed
from lab.train_result import TrainResult
from lab.trainer import rows_measured, rows_to_measure, train
from lab.twins import (
    Drives,
    FittedTwin,
    fit_stream,
    fit_system_twin,
    new_twin,
    rows_of_fit,
    task_drives,
)
from lab.watching import DriftPoint
from twins.base import frozen
from twins.fitting import TwinError

_EVENTS = {AuditPoint: "audit", DriftPoint: "drift"}


def do(assignment: Assignment, desk: Desk) -> dict[str, Any]:
    """Do a job; see `lab.jobs.desk.Work`."""
    desk.check()
    with open_run(assignment, desk) as run:
        return _done(assignment, desk, _apparatus(assignment, run))


def _done(assignment: Assignment, desk: Desk, apparatus: Apparatus) -> dict[str, Any]:
    config = assignment.config
    match config:
        case TrainConfig():
            return _train(assignment, config, apparatus, desk)
        case FitConfig():
            return _fit_only(assignment, config, apparatus, desk)
        case CalibrateConfig():
            return calibrate_at(desk, assignment, config, apparatus)
        case EvaluateConfig():
            dataset = partial(load, uploads=DeskFiles(desk, UPLOADS))
            return evaluate_at(desk, assignment, config, apparatus, dataset)


def _train(
    assignment: Assignment, config: TrainConfig, apparatus: Apparatus, desk: Desk
) -> dict[str, Any]:
    dataset = load(config.task, uploads=DeskFiles(desk, UPLOADS))
    desk.plan_rows(rows_to_measure(config, dataset))
    checkpoints = CheckpointFolder(
        DeskFiles(desk, checkpoints_folder(assignment.job)), {"bench": assignment.bench}
    )
    known = checkpoints.newest()
    desk.go_back(*((0, 0) if known is None else (known.step, rows_measured(known))))
    twin_id = config.twin.id if known is None else known.about["twin_id"]
    record, fitted = _twin_for(assignment, config, dataset, apparatus, desk, twin_id)
    checkpoints.about["twin_id"] = record.id
    if config.method not in DIGITAL_METHODS:  # whose time does not go into rows
        desk.start_pace()
    result = train(
        config,
        dataset,
        fitted,
        apparatus,
        on_metric=lambda m: desk.metric({"kind": "epoch", **asdict(m)}),
        on_event=lambda e: desk.metric({"kind": _EVENTS[type(e)], **asdict(e)}),
        stop=desk.stopped,
        checkpoints=checkpoints,
    )
    desk.write(checkpoint_file(assignment.job), _trained(config, record, result))
    return {**result.as_dict(), "twin": record.id}


def _fit_only(
    assignment: Assignment, config: FitConfig, apparatus: Apparatus, desk: Desk
) -> dict[str, Any]:
    desk.go_back(0, 0)
    done = desk.own_twin()
    if done is not None:
        return {"twin": done.id, "report": done.report}
    dataset = None if config.task is None else load(config.task, uploads=DeskFiles(desk, UPLOADS))
    like = training_like(config, assignment.family)
    record, _ = _fit(assignment, config, apparatus, dataset, like, desk)
    return {"twin": record.id, "report": record.report}


def training_like(config: FitConfig, family: str) -> TrainConfig:
    """Return the training on whose drives the error of a fit's task is measured."""
    like = TrainConfig(system=config.system, seed=config.seed)
    if config.task is None:
        return like
    return completed(like.model_copy(update={"task": config.task}), family)


def _apparatus(assignment: Assignment, run: Run) -> Apparatus:
    description = assignment.description
    return Apparatus(
        description=description,
        open_device=lambda stream, first: DeviceMeasure(
            description, run, stream=stream, first_row=first
        ),
        open_oracle=assignment.simulation.open_oracle,
    )


def _twin_for(
    assignment: Assignment,
    config: TrainConfig,
    dataset: Dataset,
    apparatus: Apparatus,
    desk: Desk,
    twin_id: str | None,
) -> tuple[TwinRecord, FittedTwin]:
    """Return the twin of that id, or the one asked for; jobs that want the same fit it once."""
    t = config.twin
    if twin_id is not None:
        known: TwinRecord | None = desk.twin(twin_id)
    else:
        known = desk.find_or_begin_twin(config.system, t.kind, t.rows, t.seed)
    if known is not None:
        return known, _load_twin(assignment, known, config, desk)
    return _fit(assignment, config, apparatus, dataset, config, desk)


def _fit(
    assignment: Assignment,
    config: TrainConfig | FitConfig,
    apparatus: Apparatus,
    dataset: Dataset | None,
    like: TrainConfig,
    desk: Desk,
) -> tuple[TwinRecord, FittedTwin]:
    """Fit the job's twin and keep it; its task error, if any, is on the drives of `like`."""
    t = config.twin
    drives: Drives | None = None
    if dataset is not None:
        drives = task_drives(like, dataset, apparatus.description)
    desk.plan_rows(rows_of_fit(t, like, dataset))
    fitted = fit_system_twin(
        t,
        new_twin(apparatus.description, assignment.family, t.kind, t.seed),
        apparatus.open_device(fit_stream(t.seed), 0),
        task_drives=drives,
        on_progress=_fit_progress(desk),
    )
    desk.check()
    record = TwinRecord(
        id=secrets.token_hex(6),
        system=config.system,
        kind=t.kind,
        rows=t.rows,
        seed=t.seed,
        job=assignment.job,
        bench=assignment.bench,
        created_s=time.time(),
        report={
            **fitted.report(),
            "task_name": None if dataset is None else config.task,
            "task_split": None if dataset is None else like.split,
        },
    )
    desk.add_twin(record, state_bytes(fitted.twin.state_dict()))
    return record, fitted


def _load_twin(
    assignment: Assignment, record: TwinRecord, config: TrainConfig, desk: Desk
) -> FittedTwin:
    """Return a kept twin, with its task error only if that is of the config's task and split.

    The parameters do not depend on the task: they are fitted to random rows.
    """
    twin = new_twin(assignment.description, assignment.family, record.kind)
    kept = twin_file(record.id).rpartition("/")
    twin.load_state_dict(load_state(DeskFiles(desk, kept[0]), kept[2]))
    report = record.report
    if twin.digest() != report["digest"]:
        raise DataError(f"twin {record.id}: its file is not the one that its fit wrote")
    return FittedTwin(
        twin=frozen(twin),
        kind=record.kind,
        system=record.system,
        seed=record.seed,
        rows=record.rows,
        hardware_rows=report["hardware_rows"],
        seconds=report["seconds"],
        random=TwinError(**report["random"]),
        task=TwinError(**report["task"]) if _same_task(report, config) else None,
    )


def _trained(config: TrainConfig, record: TwinRecord, result: TrainResult) -> bytes:
    return state_bytes(
        {
            "config": config.model_dump(),
            "classes": list(result.classes),
            "network": result.network_state,
            "twin": result.twin_state,
            "twin_kind": record.kind,
            "twin_id": record.id,
        }
    )


def _same_task(report: Mapping[str, Any], config: TrainConfig) -> bool:
    measured = (report.get("task_name"), report.get("task_split"))
    return measured == (config.task, config.split)


def _fit_progress(desk: Desk) -> Callable[[int, int, float], None]:
    def progress(step: int, steps: int, loss: float) -> None:
        desk.check()
        desk.metric({"kind": "fit", "done": step, "of": steps, "loss": loss})

    return progress

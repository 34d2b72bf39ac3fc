"""What a job would cost, before it is submitted: rows by purpose, and the hardware's time for them.

Nothing is measured and nothing is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.budget import OUTPUT_SAMPLES, budget, split_for
from lab.calibration import rows_to_calibrate
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.kinds import JobConfig, WorkConfig, kind_of
from lab.jobs.records import FitConfig, JobKind, TwinRecord
from lab.retest import rows_to_evaluate
from lab.systems.base import SystemDescription
from lab.twins import rows_of_fit
from lab.watching import rows_of_watch

COMPUTE = "the time of computing is not in it"
MAY_DRIFT = (
    "sentinels measure more, up to rows_at_most, each time they find that the device changes"
)
LIKE_SEED_0 = "trainings with other seeds are taken to cost what the one with seed 0 does"
NO_ROW_TIME = "the bench file declares no row time: no time can be told"


@dataclass(frozen=True)
class JobsAhead:
    """The jobs of the same system that are pending or running.

    rows: what they still have to measure, as far as that is known. unknown: how many have not
    told yet.
    """

    jobs: int
    rows: int
    unknown: int


@dataclass(frozen=True)
class DryRun:
    """What a job would do.

    config: complete, as the job would be submitted. rows: to be measured, by what for;
    rows_planned: their sum; rows_at_most: with what a device that changes may ask for. row_time_s:
    declared for one row; seconds, seconds_at_most: the hardware's time for all, None where none is
    declared. twin: id of the fitted twin that would be used; None where one is fitted, or none is
    needed. ahead: who waits or runs on the same system, None where it was not asked. notes: what
    the numbers leave out.
    """

    kind: JobKind
    config: dict[str, Any]
    rows: dict[str, int]
    rows_planned: int
    rows_at_most: int
    row_time_s: float
    seconds: float | None
    seconds_at_most: float | None
    twin: str | None
    ahead: JobsAhead | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What an estimate looks up.

    load: returns a task's data. find_twin: returns the fitted twin that a training would use, if
    there is one. like: completes the training config whose task a fit's error is measured on.
    trained: returns the config of a finished training.
    """

    load: Callable[[str], Dataset]
    find_twin: Callable[[TrainConfig], TwinRecord | None]
    like: Callable[[FitConfig], TrainConfig]
    trained: Callable[[EvaluateConfig], TrainConfig]


def dry_run(
    config: WorkConfig, system: SystemDescription, known: Known, ahead: JobsAhead | None = None
) -> DryRun:
    """Estimate a complete and checked config; raise ConfigError or DataError of its data."""
    rows, at_most, twin = _rows(config, known)
    row_s = system.row_time_s
    notes = [COMPUTE]
    if at_most > sum(rows.values()):
        notes.append(MAY_DRIFT)
    if row_s <= 0:
        notes.append(NO_ROW_TIME)
    return _summed(config, rows, at_most, row_s, notes, ahead, twin)


def _summed(
    config: JobConfig,
    rows: Mapping[str, int],
    at_most: int,
    row_s: float,
    notes: Sequence[str],
    ahead: JobsAhead | None,
    twin: str | None = None,
) -> DryRun:
    planned = sum(rows.values())
    return DryRun(
        kind=kind_of(config),
        config=config.model_dump(mode="json"),
        rows={purpose: number for purpose, number in rows.items() if number},
        rows_planned=planned,
        rows_at_most=at_most,
        row_time_s=row_s,
        seconds=planned * row_s if row_s > 0 else None,
        seconds_at_most=at_most * row_s if row_s > 0 else None,
        twin=twin,
        ahead=ahead,
        notes=tuple(notes),
    )


def dry_comparison(
    config: CompareConfig, parts: Sequence[tuple[int, DryRun]], ahead: JobsAhead | None = None
) -> DryRun:
    """Sum up a comparison's parts, each with how many there are like it; its fits first.

    The trainings' own estimates count a twin that is not fitted yet, which here is a part.
    """
    rows: dict[str, int] = {}
    at_most = 0
    for number, part in parts:
        own = dict(part.rows)
        fitted = own.pop("twin", 0) if part.kind == "train" else 0
        at_most += number * (part.rows_at_most - fitted)
        for purpose, count in own.items():
            rows[purpose] = rows.get(purpose, 0) + number * count
    notes = [note for _, part in parts for note in part.notes]
    row_s = parts[0][1].row_time_s
    return _summed(config, rows, at_most, row_s, [*dict.fromkeys(notes), LIKE_SEED_0], ahead)


def _rows(config: WorkConfig, known: Known) -> tuple[Mapping[str, int], int, str | None]:
    """Return the rows by purpose, how many at most, and the id of the twin that would be used."""
    match config:
        case CalibrateConfig():
            rows = {"calibration": rows_to_calibrate(config)}
        case EvaluateConfig():
            like = known.trained(config)
            rows = {"test": rows_to_evaluate(config, like, known.load(like.task))}
        case FitConfig():
            rows = {"twin": _rows_of_fit(config, known)}
        case TrainConfig():
            return _rows_of_training(config, known)
    return rows, sum(rows.values()), None


def _rows_of_fit(config: FitConfig, known: Known) -> int:
    if config.task is None:
        return rows_of_fit(config.twin)
    return rows_of_fit(config.twin, known.like(config), known.load(config.task))


def _rows_of_training(
    config: TrainConfig, known: Known
) -> tuple[Mapping[str, int], int, str | None]:
    dataset = known.load(config.task)
    parts = split_for(config, dataset)
    costs = budget(config, parts)
    twin = known.find_twin(config)
    watched, at_most = rows_of_watch(config, costs.steps)
    output = 0
    if config.control == "output_refit":
        output = min(len(parts.train_idx), OUTPUT_SAMPLES) * config.rows_a_sample
    rows = {
        "twin": 0 if twin is not None else rows_of_fit(config.twin, config, dataset),
        "initialisation": costs.initial,
        "training": costs.training,
        "checks": costs.checks,
        "audits": costs.audits,
        "sentinels": watched,
        "output_refit": output,
        "test": costs.test - output,
    }
    return rows, sum(rows.values()) - watched + at_most, None if twin is None else twin.id

"""The parts of a comparison: which jobs it consists of, and how they follow it.

Imports no torch.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from lab.comparison.plan import fit_name, run_name
from lab.config import TrainConfig
from lab.jobs.configs import CompareConfig
from lab.jobs.records import ACTIVE, WISHES, FitConfig, JobState, Wish
from lab.jobs.store import Store
from lab.jobs.tables import jobs


def fit_config(config: CompareConfig, rows: int | None) -> FitConfig:
    """Return what fits the twin on so many rows, None: as many as the system's recipe says."""
    shared = {"system": config.system, "task": config.task, **_shared(config)}
    return FitConfig.model_validate({**shared, **config.twin_fields(rows)})


def run_configs(config: CompareConfig, twin: Mapping[str, Any]) -> list[TrainConfig]:
    """Return the trainings on one twin, given by its `TwinConfig`'s fields."""
    return [run.model_copy(update=_shared(config)) for run in config.configs(twin)]


def some_parts(config: CompareConfig) -> Iterator[FitConfig | TrainConfig]:
    """Yield each fit, and one training of each method and control with its twin unfitted."""
    first = config.model_copy(update={"seeds": 1, "control_seeds": 1})
    for rows in config.twin_rows:
        yield fit_config(config, rows)
        yield from run_configs(first, config.twin_fields(rows))


def part_name(config: TrainConfig, rows: int | None) -> str:
    """Return how a training on the twin of so many rows is called."""
    return run_name(config) if rows is None else f"{run_name(config)}, {fit_name(rows)}"


def part_key(comparison: str, name: str) -> str:
    """Return the idempotency key of a part."""
    return f"part:{comparison}:{name}"


def with_comparison(state: JobState, comparison: str) -> str:
    """Return why a part is in this state that has followed its comparison into it."""
    return f"{state} with comparison {comparison}"


def follow_comparisons(store: Store, tell: Callable[[str], None]) -> None:
    """Pause and cancel the parts of comparisons that were; blocking, safe on every host."""
    for part, state, wish, comparison in list(_strays(store)):
        ends_as: JobState = "paused" if wish == "pause" else "cancelled"
        reason = with_comparison(ends_as, comparison)
        if state == "running":
            store.wish(part, wish, reason)
        elif store.settle_pending(part, ends_as, reason):
            tell(part)


def _strays(store: Store) -> Iterator[tuple[str, JobState, Wish, str]]:
    """Yield parts with their state, what they are to be asked for, and their comparison."""
    part, comparison = jobs.alias("part"), jobs.alias("comparison")
    wish = sa.case(
        (comparison.c.wish != "", comparison.c.wish),
        (comparison.c.state == "paused", "pause"),
        (comparison.c.state == "cancelled", "cancel"),
        else_="",
    )
    query = (
        sa.select(
            part.c.id,
            part.c.state,
            part.c.wish.label("has"),
            wish.label("wish"),
            comparison.c.id.label("comparison"),
        )
        .join(comparison, part.c.parent == comparison.c.id)
        .where(part.c.state.in_((*ACTIVE, "paused")), wish != "")
    )
    for row in store.database.rows(query):
        more = WISHES.index(row.wish) > WISHES.index(row.has)
        if more and (row.state, row.wish) != ("paused", "pause"):
            yield row.id, row.state, row.wish, row.comparison


def _shared(config: CompareConfig) -> dict[str, Any]:
    return {"priority": config.priority, "deadline_s": config.deadline_s}

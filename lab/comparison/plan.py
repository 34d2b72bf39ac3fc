"""Compare training methods on one bench: what to run, and what came out, as plain data.

All methods and seeds of a comparison share one twin; every run trains on a copy of it. Imports
neither torch nor drivers.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.config import Method, NetworkConfig, Split, Task, TrainConfig, TwinConfig, TwinKind
from lab.errors import ConfigError

_DEFAULT = TrainConfig()
TWIN_SEED = 0


def _without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value stands twice")
    return values


class Comparison(BaseModel):
    """The plan: every method with the seeds 0 to seeds-1, once for each number of twin rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str = "optics"
    task: Task = "vowels"
    methods: Annotated[tuple[Method, ...], Field(min_length=1), AfterValidator(_without_repeats)]
    seeds: int = Field(1, ge=1, le=1000)
    twin_rows: Annotated[
        tuple[Annotated[int, Field(ge=20)], ...],
        Field(min_length=1),
        AfterValidator(_without_repeats),
    ] = (_DEFAULT.twin.rows,)
    twin_kind: TwinKind = _DEFAULT.twin.kind
    split: Split = _DEFAULT.split
    epochs: int = Field(_DEFAULT.epochs, ge=1, le=10_000)
    layers: int = Field(_DEFAULT.network.layers, ge=1, le=50)

    @property
    def runs(self) -> int:
        """Get how many training runs the plan has, for all numbers of twin rows together."""
        return len(self.methods) * self.seeds * len(self.twin_rows)

    def twin_config(self, rows: int) -> TwinConfig:
        """Return the twin that all methods share."""
        return TwinConfig(kind=self.twin_kind, rows=rows, seed=TWIN_SEED)

    def configs(self, twin: TwinConfig) -> list[TrainConfig]:
        """Return one training config for each method and seed."""
        return [
            TrainConfig(
                system=self.system,
                task=self.task,
                method=method,
                seed=seed,
                split=self.split,
                epochs=self.epochs,
                network=NetworkConfig(layers=self.layers),
                twin=twin,
            )
            for method in self.methods
            for seed in range(self.seeds)
        ]


def plan_comparison(**options: Any) -> Comparison:
    """Return the plan for the given options; raise ConfigError that names option and reason."""
    try:
        return Comparison(**options)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'comparison'}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(reasons) from error


@dataclass(frozen=True)
class Progress:
    """A step forward: `done` of `total` steps of a twin's fit, or epochs of a training run.

    run names what goes on; accuracy (0 to 1) is that of the epoch's training batches.
    """

    stage: Literal["fit", "train"]
    run: str
    done: int
    total: int
    accuracy: float | None = None


def fit_name(rows: int) -> str:
    """Return how a twin's fit is called where its progress is shown."""
    return f"twin on {rows} rows"


def run_name(config: TrainConfig) -> str:
    """Return how a training run is called where its progress is shown."""
    return f"{config.method} seed {config.seed}"


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Outcome:
    """What came out with one twin: its report, and every run's result in the plan's order.

    The dicts are those of `FittedTwin.report` and `TrainResult.as_dict`. gap is the simulated
    bench's distance from the textbook, None where there is none or it is not known.
    """

    twin: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]
    gap: float | None


Run = Callable[[int], Outcome]
"""Runs the plan with one twin, fitted on this many rows."""


def compare(plan: Comparison, run: Run) -> dict[str, Any]:
    """Return the comparison as JSON data; with several numbers of twin rows, `{"runs": [...]}`."""
    runs = [summarise(plan, rows, run(rows)) for rows in plan.twin_rows]
    return runs[0] if len(runs) == 1 else {"runs": runs}


def summarise(plan: Comparison, twin_rows: int, outcome: Outcome) -> dict[str, Any]:
    """Return what one twin's runs amount to; accuracies from 0 to 1, on the device.

    rows, seconds and instrument_hours are totals over the seeds, with a list beside each.
    """
    by_method = {m: [r for r in outcome.results if r["method"] == m] for m in plan.methods}
    baseline = [r["baseline"] for r in by_method[plan.methods[0]]]
    return {
        "system": plan.system,
        "task": plan.task,
        "split": plan.split,
        "gap": outcome.gap,
        "epochs": plan.epochs,
        "layers": plan.layers,
        "seeds": plan.seeds,
        "twin_rows": twin_rows,
        "twin": dict(outcome.twin),
        "baseline": {"logistic_regression": {**_accuracy(baseline)}},
        "methods": {method: _method(results) for method, results in by_method.items()},
    }


def _method(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = _accuracy([r["test_accuracy"] for r in results])
    for key in ("rows", "seconds", "instrument_hours"):
        values = [r[key] for r in results]
        summary |= {key: sum(values), f"{key}_per_seed": values}
    claimed = [r["twin_accuracy"] for r in results]
    if None not in claimed:
        summary |= {"twin_accuracy": claimed, "twin_accuracy_mean": statistics.fmean(claimed)}
    return summary


def _accuracy(values: Sequence[float]) -> dict[str, Any]:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {
        "accuracy": list(values),
        "mean": statistics.fmean(values),
        "min": min(values),
        "standard_error": error,
    }

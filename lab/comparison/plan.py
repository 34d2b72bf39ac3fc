"""Compare training methods on one bench: what to run, as plain data.

All methods and seeds of a comparison share one twin; every run trains on a copy of it. Imports
neither torch nor drivers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
)

from lab.config import Control, MeasurePath, Method, Split, Task, TrainConfig, TwinKind
from lab.errors import ConfigError
from lab.network_config import NetworkConfig

TWIN_SEED = 0


def _without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value stands twice")
    return values


class Sweep(BaseModel):
    """Every method with the seeds 0 to seeds-1, for each number of twin rows.

    What is None is chosen by what works for the system and the task (`lab.recipes`). controls: each
    is run with seed 0 to control_seeds-1. network: what it settles wins over the recipe's. rows:
    equal hardware rows for all methods, instead of equal epochs. quick: a small run with fewer
    samples (`lab.recipes.quick`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    system: str = "optics"
    task: Task = "vowels"
    methods: Annotated[tuple[Method, ...], Field(min_length=1), AfterValidator(_without_repeats)]
    controls: Annotated[tuple[Control, ...], AfterValidator(_without_repeats)] = ()
    seeds: int = Field(1, ge=1, le=1000)
    control_seeds: int = Field(1, ge=1, le=1000)
    twin_rows: Annotated[
        tuple[Annotated[int, Field(ge=20)] | None, ...],
        Field(min_length=1),
        AfterValidator(_without_repeats),
    ] = (None,)
    twin_kind: TwinKind | None = None
    split: Split = "random"
    epochs: int | None = Field(None, ge=1, le=10_000)
    rows: int | None = Field(None, ge=1)
    network: NetworkConfig | None = None
    layers: int | None = Field(None, ge=1, le=50)
    train_images: int | None = Field(None, ge=2)
    test_images: int | None = Field(None, ge=1)
    checks: int = Field(0, ge=0, le=1000)
    path: MeasurePath | None = None
    quick: bool = False

    @property
    def runs(self) -> int:
        """Get how many training runs the plan has at most, with all its twins."""
        of_one_twin = len(self.methods) * self.seeds + len(self.controls) * self.control_seeds
        return of_one_twin * len(self.twin_rows)

    @field_serializer("network")
    def _what_is_set(self, network: NetworkConfig | None) -> dict[str, Any] | None:
        """Write only what is set: the recipe's wins over a default that was written and read."""
        return None if network is None else network.model_dump(mode="json", exclude_unset=True)

    def twin_fields(self, rows: int | None) -> dict[str, Any]:
        """Return what is settled of the twin that all methods share."""
        return _given({"kind": self.twin_kind, "rows": rows, "seed": TWIN_SEED})

    def configs(self, twin: Mapping[str, Any]) -> list[TrainConfig]:
        """Return one training config for each method and seed, then those of the controls.

        They hold only what is settled here; see `lab.recipes.completed`.
        """
        runs: list[tuple[Method, Control | None, int]] = [
            (method, None, seed) for method in self.methods for seed in range(self.seeds)
        ]
        runs += [
            (_METHOD_OF[control], control, seed)
            for control in self.controls
            for seed in range(self.control_seeds)
        ]
        return [self._config(twin, *run) for run in runs]

    def _config(
        self, twin: Mapping[str, Any], method: Method, control: Control | None, seed: int
    ) -> TrainConfig:
        network = {} if self.network is None else self.network.model_dump(exclude_unset=True)
        return TrainConfig.model_validate(
            _given(
                {
                    "system": self.system,
                    "task": self.task,
                    "method": method,
                    "control": control,
                    "seed": seed,
                    "split": self.split,
                    "epochs": self.epochs,
                    "rows": self.rows,
                    "train_images": self.train_images,
                    "test_images": self.test_images,
                    "checks": self.checks or None,
                    "path": self.path,
                    "quick": self.quick or None,
                    "network": {**network, **_given({"layers": self.layers})},
                    "twin": dict(twin),
                }
            )
        )


class Comparison(Sweep):
    """The plan of a comparison on a bench file: a sweep for each gap of its simulated rigs."""

    gaps: Annotated[
        tuple[Annotated[float, Field(ge=0, le=3)] | None, ...],
        Field(min_length=1),
        AfterValidator(_without_repeats),
    ] = (None,)

    @property
    def runs(self) -> int:
        """Get how many training runs the plan has at most, with all its twins and gaps."""
        return super().runs * len(self.gaps)


# What a control trains by; identity measures nothing, whatever the method.
_METHOD_OF: dict[Control, Method] = {
    "identity": "pat",
    "identity_clamped": "pat",
    "output_refit": "in-silico",
    "physics_only": "pat-refit",
    "digital_only": "pat-refit",
}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None and value != {}}


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
    """A step forward: `done` of `total` steps of a twin's fit or of a training run.

    run names what goes on; accuracy (0 to 1) is that of the last training batches.
    """

    stage: Literal["fit", "train"]
    run: str
    done: int
    total: int
    accuracy: float | None = None


def fit_name(rows: int | None) -> str:
    """Return how a twin's fit is called where its progress is shown."""
    return "twin" if rows is None else f"twin on {rows} rows"


def run_name(config: TrainConfig) -> str:
    """Return how a training run is called where its progress is shown."""
    return f"{config.control or config.method} seed {config.seed}"


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Outcome:
    """What came out with one twin: its report, and every run's result in the plan's order.

    The dicts are those of `FittedTwin.report` and `TrainResult.as_dict`. config: the completed one
    of the first run. gap is the simulated bench's distance from the textbook, None where there is
    none or it is not known.
    """

    twin: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    gap: float | None


Run = Callable[[int | None, float | None], Outcome]
"""Runs the plan with one twin: fitted on this many rows, on a bench of this gap."""

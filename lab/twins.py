"""Make and fit the digital twin of a system."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lab.budget import split_for
from lab.config import TrainConfig, TwinConfig, TwinKind
from lab.datasets import Dataset
from lab.drives import random_drives
from lab.labels import network_features
from lab.measure import DeviceMeasure
from lab.models import build_network
from lab.systems.base import SystemDescription
from twins.base import DigitalTwin
from twins.circuit import CircuitTwin
from twins.filters import FilterTwin
from twins.fitting import FitSettings, MeasuredRows, TwinError, fit_twin, twin_error
from twins.neural import NeuralTwin
from twins.optics import OpticsTwin
from twins.plate import PlateTwin

STRUCTURED: dict[str, Callable[[], DigitalTwin]] = {
    "optics": OpticsTwin,
    "circuit": CircuitTwin,
    "plate": PlateTwin,
}
Drives = tuple[Tensor, Tensor]
_TASK_ROWS = 100  # samples on which a twin's error on the task's own inputs is measured
HELD_OUT_ROWS = 100  # measured beside those of the fit, for its error
_FIT_STREAM = 1 << 40  # noise streams of twin fits, apart from those of training runs


def fit_stream(seed: int) -> int:
    """Return the noise stream of a twin fit with this seed."""
    return _FIT_STREAM + seed


@dataclass(frozen=True)
class FittedTwin:
    """A twin and how good it is.

    random and task are errors on rows that the fit did not see: random drives, and the task's
    encoded samples under random theta (None where no task was given). rows counts the rows of the
    fit, hardware_rows all that were measured for it.
    """

    twin: DigitalTwin
    kind: TwinKind
    system: str
    seed: int
    rows: int
    hardware_rows: int
    seconds: float
    random: TwinError
    task: TwinError | None

    def report(self) -> dict[str, Any]:
        """Return everything but the parameters, as plain data."""
        fields = {k: v for k, v in self.__dict__.items() if k not in ("twin", "random", "task")}
        return {
            **fields,
            "digest": self.twin.digest(),
            "random": asdict(self.random),
            "task": None if self.task is None else asdict(self.task),
        }


def new_twin(
    description: SystemDescription, family: str, kind: TwinKind, seed: int = 0
) -> DigitalTwin:
    """Return an unfitted twin; `family` is the system's name in SYSTEMS.

    seed draws the initial weights of a data-driven twin; a structured one has none to draw.
    Raises ValueError where there is no structured twin for the family, or none of this size.
    """
    if kind == "neural":
        sizes = (description.x, description.theta, description.y)
        return NeuralTwin(*(spec.shape[0] for spec in sizes), seed=seed)
    if kind == "filter":
        if description.drives != "series":
            raise ValueError(f"a filter twin is for series; '{family}' has channels")
        return FilterTwin(description.x.shape[0], seed=seed)
    if family not in STRUCTURED:
        raise ValueError(f"no structured twin for '{family}'; use kind = 'neural'")
    twin = STRUCTURED[family]()
    if description.x.shape != (twin.x_size,) or description.y.shape != (twin.y_size,):
        raise ValueError(
            f"{description.name}: the structured twin of '{family}' maps {twin.x_size} values to "
            f"{twin.y_size}, the system {description.x.shape} to {description.y.shape}; use "
            "kind = 'neural'"
        )
    return twin


def fit_system_twin(
    config: TwinConfig,
    twin: DigitalTwin,
    device: DeviceMeasure,
    *,
    task_drives: Drives | None = None,
    settings: FitSettings | None = None,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> FittedTwin:
    """Measure random rows on the device, fit the twin to them, and measure how good it is.

    task_drives: x (rows, x_size) and theta (rows, theta_size) of samples, for the error on the
    task's own inputs.
    """
    start = time.perf_counter()
    fit_rows = measure_random(device, twin, config.rows, seed=2 * config.seed)
    settings = settings or twin.fit_settings()
    fit_twin(twin, fit_rows, seed=config.seed, settings=settings, on_progress=on_progress)
    held_out = measure_random(device, twin, HELD_OUT_ROWS, seed=2 * config.seed + 1)
    task = None
    if task_drives is not None:
        rows = MeasuredRows(*task_drives, device(*task_drives))
        task = twin_error(twin, rows, zero=device.description.zero)
    return FittedTwin(
        twin=twin,
        kind=config.kind,
        system=device.description.name,
        seed=config.seed,
        rows=config.rows,
        hardware_rows=device.rows,
        seconds=time.perf_counter() - start,
        random=twin_error(twin, held_out, zero=device.description.zero),
        task=task,
    )


def rows_of_fit(
    config: TwinConfig, like: TrainConfig | None = None, dataset: Dataset | None = None
) -> int:
    """Return how many rows a fit measures; with the task rows of a training, if that is given."""
    rows = config.rows + HELD_OUT_ROWS
    if like is None or dataset is None:
        return rows
    samples = min(_TASK_ROWS, len(split_for(like, dataset).train_idx))
    return rows + samples * like.network.parallel


def task_drives(config: TrainConfig, dataset: Dataset, description: SystemDescription) -> Drives:
    """Return what the first layer would be given for training samples, before any training.

    x (rows, x_size), at most 100 samples drawn by the config's seed times the passes of a layer;
    theta (rows, theta_size) random as in a fit, or, where the network fills it, its own.
    """
    rows = torch.from_numpy(split_for(config, dataset).train_idx)
    generator = torch.Generator().manual_seed(config.seed)
    pick = rows[torch.randperm(len(rows), generator=generator)[:_TASK_ROWS]]
    features = network_features(config, dataset)
    sent: list[Drives] = []

    def remember(x: Tensor, theta: Tensor) -> Tensor:
        sent.append((x, theta))
        return torch.zeros(len(x), description.y.shape[0])

    network = build_network(
        remember,
        nn.Identity(),
        config.network.model_copy(update={"layers": 1}),
        features=features.shape[1],
        x_size=description.x.shape[0],
        theta_size=description.theta.shape[0],
        y_size=description.y.shape[0],
        classes=len(dataset.classes),
        seed=config.seed,
    )
    with torch.no_grad():
        network.encoder.initialise(features[rows[: config.initial_rows]])
        network(features[pick])
    x, theta = sent[0]
    if config.network.theta != "data":
        theta = random_drives(description, len(x), seed=config.seed)[1]
    return x, theta


def measure_random(
    device: DeviceMeasure, twin: DigitalTwin, rows: int, *, seed: int
) -> MeasuredRows:
    """Measure random drives; float32 rows, normalised."""
    x, theta = random_drives(device.description, rows, seed=seed)
    parts = [device(a, b) for a, b in zip(x.split(100), theta.split(100), strict=True)]
    return MeasuredRows(x, theta, torch.cat(parts))

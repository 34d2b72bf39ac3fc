"""Make and fit the digital twin of a system."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lab.config import Split, TwinConfig, TwinKind
from lab.datasets import Dataset, split
from lab.drives import random_drives
from lab.measure import DeviceMeasure
from lab.models import encode
from lab.systems.base import SystemDescription
from twins.base import DigitalTwin
from twins.circuit import CircuitTwin
from twins.fitting import FitSettings, MeasuredRows, TwinError, fit_twin, twin_error
from twins.neural import NeuralTwin
from twins.optics import OpticsTwin
from twins.plate import PlateTwin

STRUCTURED: dict[str, Callable[[], DigitalTwin]] = {
    "optics": OpticsTwin,
    "circuit": CircuitTwin,
    "plate": PlateTwin,
}
HELD_OUT_ROWS = 100  # measured beside those of the fit, for its error
_TASK_ROWS = 100  # samples on which a twin's error on the task's own inputs is measured
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
    task_inputs: Tensor | None = None,
    settings: FitSettings | None = None,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> FittedTwin:
    """Measure random rows on the device, fit the twin to them, and measure how good it is.

    task_inputs (rows, x_size): encoded samples, for the error on the task's own inputs.
    """
    start = time.perf_counter()
    fit_rows = measure_random(device, twin, config.rows, seed=2 * config.seed)
    fit_twin(twin, fit_rows, seed=config.seed, settings=settings, on_progress=on_progress)
    held_out = measure_random(device, twin, HELD_OUT_ROWS, seed=2 * config.seed + 1)
    task = None
    if task_inputs is not None:
        theta = random_drives(len(task_inputs), twin.x_size, twin.theta_size, seed=config.seed)[1]
        task = twin_error(twin, MeasuredRows(task_inputs, theta, device(task_inputs, theta)))
    return FittedTwin(
        twin=twin,
        kind=config.kind,
        system=device.description.name,
        seed=config.seed,
        rows=config.rows,
        hardware_rows=device.rows,
        seconds=time.perf_counter() - start,
        random=twin_error(twin, held_out),
        task=task,
    )


def draw_task_inputs(
    dataset: Dataset, description: SystemDescription, kind: Split, seed: int
) -> Tensor:
    """Return encoded training samples (at most 100, x_size), 0..1, drawn by `seed`."""
    rows = torch.from_numpy(split(dataset, kind, seed).train_idx)
    pick = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:_TASK_ROWS]
    features = torch.from_numpy(dataset.features).float()[rows[pick]]
    return encode(features, description.x.shape[0])


def measure_random(
    device: DeviceMeasure, twin: DigitalTwin, rows: int, *, seed: int
) -> MeasuredRows:
    """Measure random drives; float32 rows, normalised."""
    x, theta = random_drives(rows, twin.x_size, twin.theta_size, seed=seed)
    parts = [device(a, b) for a, b in zip(x.split(100), theta.split(100), strict=True)]
    return MeasuredRows(x, theta, torch.cat(parts))

"""Fit a digital twin to measured rows, and say how good it is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twins.base import DigitalTwin, FitSettings, frozen

__all__ = [
    "FitSettings",
    "MeasuredRows",
    "TwinError",
    "fit_twin",
    "twin_error",
    "weighted_error",
]


@dataclass(frozen=True)
class MeasuredRows:
    """Normalised measured rows: x (rows, x_size), theta (rows, theta_size), y (rows, y_size)."""

    x: Tensor
    theta: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> "MeasuredRows":
        return MeasuredRows(self.x[rows], self.theta[rows], self.y[rows])

    def to(self, twin: DigitalTwin) -> "MeasuredRows":
        """Return the rows in the twin's dtype and on its device."""
        like = next(twin.parameters())
        return MeasuredRows(self.x.to(like), self.theta.to(like), self.y.to(like))


@dataclass(frozen=True)
class TwinError:
    """How far a twin's prediction is from measured rows.

    r2:         1 - SSE / SST, SST about each output's own mean over the rows.
    normalised: rms error over rms output, both from the instrument's zero.
    shape_r2:   r2 after dividing every spectrum by its own mean: blind to brightness, which
                otherwise dominates.
    """

    r2: float
    normalised: float
    shape_r2: float


def _r2(predicted: Tensor, measured: Tensor) -> float:
    total = (measured - measured.mean(0)).square().sum()
    return float(1 - (predicted - measured).square().sum() / total)


@torch.no_grad()
def twin_error(twin: DigitalTwin, rows: MeasuredRows, *, zero: float = 0.0) -> TwinError:
    """Compare the twin's prediction with measured rows (at least 2).

    zero: what the instrument's 0 is in normalised units (a voltage's: 0.5).
    """
    rows = rows.to(twin)
    y = twin(rows.x, rows.theta)
    output = (rows.y - zero).square().mean().sqrt()
    normalised = float((y - rows.y).square().mean().sqrt() / output)
    shapes = [v / v.mean(1, keepdim=True).clamp_min(1e-12) for v in (y, rows.y)]
    return TwinError(_r2(y, rows.y), normalised, _r2(shapes[0], shapes[1]))


def weighted_error(y: Tensor, measured: Tensor, floor: float) -> Tensor:
    """Return the mean squared error, each row relative to its own brightness.

    A row's scale is its mean |output| plus `floor` times that of all rows: dark rows count nearly
    as much as bright ones, and black ones do not dominate. y and measured (rows, y_size).
    """
    brightness = measured.abs().mean(1, keepdim=True)
    weight = 1 / (brightness + floor * brightness.mean()).clamp_min(1e-12)
    return ((y - measured) * weight).square().mean()


def fit_twin(
    twin: DigitalTwin,
    rows: MeasuredRows,
    *,
    seed: int,
    settings: FitSettings | None = None,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> None:
    """Fit the twin in place on measured rows; it comes back frozen.

    Reproducible: same twin, rows, seed and settings give the same parameters.
    on_progress(step, steps, loss) is called about fifty times.
    Raises ValueError if there are no rows or a value is not finite.
    """
    settings = settings or FitSettings()
    _check_rows(rows)
    rows = rows.to(twin)
    twin.train().requires_grad_(True)
    twin.prepare(rows.x, rows.theta, rows.y)
    optimiser = torch.optim.Adam(twin.fit_groups(settings.rate))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(settings.steps):
        pick = torch.randint(len(rows), (min(settings.batch, len(rows)),), generator=generator)
        part = rows[pick.to(rows.y.device)]
        optimiser.zero_grad()
        loss = weighted_error(twin(part.x, part.theta), part.y, settings.floor)
        loss.backward()
        optimiser.step()
        schedule.step()
        if on_progress is not None and step % max(1, settings.steps // 50) == 0:
            on_progress(step, settings.steps, float(loss.detach()))
    frozen(twin)


def _check_rows(rows: MeasuredRows) -> None:
    if len(rows) == 0:
        raise ValueError("no rows to fit a twin on")
    for name in ("x", "theta", "y"):
        if not torch.isfinite(getattr(rows, name)).all():
            raise ValueError(f"measured rows: {name} has values that are not finite")

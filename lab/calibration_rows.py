"""Which rows a calibration measures: a few that every system has, allowed by its limits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from drivers.errors import LimitError
from drivers.spec import Array
from lab.drives import random_drives
from lab.jobs.configs import ROUND_ROWS
from lab.systems.base import PhysicalSystem, SystemDescription

SHARES = (0.2, 0.4, 0.6, 0.8)
"""Of the way from the dark to the bright row, which gives the response."""
REPEATS = 2  # of the dark and of the bright row, one right after the other
REFERENCES = ROUND_ROWS - len(SHARES) - 2 * REPEATS
_SEED = 0  # of the reference rows: the same in every calibration
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class CalibrationRows:
    """The rows of one round, in order: dark twice, the shares, bright twice, the references.

    x (16, x_size) and theta (16, theta_size), normalised, float64. share: of the system's reference
    row that its limits let be the bright row.
    """

    x: Tensor
    theta: Tensor
    share: float


def calibration_rows(system: PhysicalSystem) -> CalibrationRows:
    """Return the rows of a round; nothing is sent.

    A row that the system's limits refuse is halved towards the dark one until they allow it; raises
    LimitError if even a hundredth is refused.
    """
    d = system.description
    dark, strongest = (_normalised(d, row) for row in (system.dark_row(), system.reference_row()))
    bright, share = _allowed(system, dark, strongest)
    x, theta = random_drives(d, REFERENCES, seed=_SEED)
    references = [
        _allowed(system, dark, torch.cat([x[i : i + 1], theta[i : i + 1]], dim=1).double())[0]
        for i in range(REFERENCES)
    ]
    levels = [_allowed(system, dark, dark + s * (bright - dark))[0] for s in SHARES]
    rows = torch.cat([*[dark] * REPEATS, *levels, *[bright] * REPEATS, *references])
    x_size = d.x.shape[0]
    return CalibrationRows(rows[:, :x_size], rows[:, x_size:], share)


def _normalised(d: SystemDescription, row: tuple[Array, Array]) -> Tensor:
    """Return x and theta, (1, ...) each in physical units, as one row, 0..1."""
    parts = [
        torch.from_numpy(spec.to_normalised(part))
        for spec, part in zip((d.x, d.theta), row, strict=True)
    ]
    return torch.cat(parts, dim=1).clamp(0, 1)


def _allowed(system: PhysicalSystem, dark: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    """Return the row (1, n), or what of it towards the dark one is allowed, and which share."""
    d, share = system.description, 1.0
    x_size = d.x.shape[0]
    while True:
        row = wanted if share == 1 else dark + share * (wanted - dark)
        x, theta = row[:, :x_size].numpy(), row[:, x_size:].numpy()
        try:
            system.check(d.x.to_physical(x), d.theta.to_physical(theta))
        except LimitError:
            if share < _LEAST_SHARE:
                raise
            share /= 2
        else:
            return row, share

"""Random inputs for fitting a twin: wide enough to cover where training will walk."""

import torch
from torch import Tensor

from lab.systems.base import SystemDescription

_BLOCK = 4
_SERIES_BLOCKS = (1, 1, 2, 3, 6, 4)  # samples that a series holds still for
_SPARSE = (1, 5)  # kinds of series that are mostly silent


def random_drives(description: SystemDescription, rows: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return random normalised x (rows, x_size) and theta (rows, theta_size), 0..1 inclusive."""
    sizes = description.x.shape[0], description.theta.shape[0]
    draw = random_series if description.drives == "series" else random_channels
    return draw(rows, *sizes, seed=seed)


def random_channels(rows: int, x_size: int, theta_size: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return random x (rows, x_size) and theta (rows, theta_size) for channels side by side.

    A third of the rows of x is uniform per channel; the others are normal around a random mean with
    a random width, half of them in blocks of four equal channels, as an encoder that repeats
    features makes them; all clamped, so that the rails are covered. theta is U^e with e from 1 to 3
    per row: from evenly spread to mostly dark, as trained networks are.
    """
    g = torch.Generator().manual_seed(seed)
    uniform = torch.rand(rows, x_size, generator=g)
    mean = torch.rand(rows, 1, generator=g)
    width = torch.rand(rows, 1, generator=g) / 2
    single = torch.randn(rows, x_size, generator=g)
    blocks = torch.randn(rows, -(-x_size // _BLOCK), generator=g)
    blocks = blocks.repeat_interleave(_BLOCK, dim=1)[:, :x_size]
    kind = torch.arange(rows)[:, None] % 3
    normal = mean + width * torch.where(kind == 1, single, blocks)
    x = torch.where(kind == 0, uniform, normal).clamp(0, 1)
    exponent = 1 + 2 * torch.rand(rows, 1, generator=g)
    return x, torch.rand(rows, theta_size, generator=g) ** exponent


def random_series(rows: int, x_size: int, theta_size: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return random x (rows, x_size) and theta (rows, theta_size) for series that are added.

    Around the middle of the range x is evenly distributed, held still for 1 to 6 samples, mostly
    silent in a third of the rows, of random loudness, off the middle by more the quieter it is;
    half of the rows have random factors sample by sample, as masks make them. theta is silent or
    normal with deviation 0.1 (0.2 of full scale), half of the rows each. All clamped.
    """
    g = torch.Generator().manual_seed(seed)
    held = torch.empty(rows, x_size)
    for kind, block in enumerate(_SERIES_BLOCKS):
        own = held[kind :: len(_SERIES_BLOCKS)]
        values = 2 * torch.rand(len(own), -(-x_size // block), generator=g) - 1
        if kind in _SPARSE:
            values *= torch.rand(values.shape, generator=g) < 0.3
        own.copy_(values.repeat_interleave(block, dim=1)[:, :x_size])
    loudness = torch.rand(rows, 1, generator=g)
    offset = 0.6 * (2 * torch.rand(rows, 1, generator=g) - 1) * (1 - 0.7 * loudness)
    masked = torch.rand(rows, 1, generator=g) < 0.5
    mask = 1 + 0.4 * torch.randn(rows, x_size, generator=g) * masked
    x = (loudness * held + offset) * mask
    moved = torch.rand(rows, 1, generator=g) < 0.5
    theta = 0.1 * torch.randn(rows, theta_size, generator=g) * moved
    return ((x + 1) / 2).clamp(0, 1), (0.5 + theta).clamp(0, 1)

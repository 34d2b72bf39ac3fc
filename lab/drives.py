"""Random inputs for fitting a twin: wide enough to cover where training will walk."""

import torch
from torch import Tensor

_BLOCK = 4


def random_drives(rows: int, x_size: int, theta_size: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return random normalised x (rows, x_size) and theta (rows, theta_size), 0..1 inclusive.

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

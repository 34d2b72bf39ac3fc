"""A device of three channels without any hardware, and a twin that is wrong about it."""

import torch
from torch import Tensor, nn


class Device:
    """A noisy nonlinear 'device' that records what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []
        self.noise = torch.Generator().manual_seed(0)

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        self.calls.append((x, theta))
        y = torch.sin(3 * x) * theta
        return y + 0.1 * torch.randn(y.shape, generator=self.noise).to(y)


class Twin(nn.Module):
    """A wrong but differentiable model of it, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.5))
        self.calls = 0

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(self.a.to(x) * x) * theta


def inputs(rows: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(rows, 3, generator=g, dtype=dtype).requires_grad_()
    theta = torch.rand(rows, 3, generator=g, dtype=dtype).requires_grad_()
    return x, theta

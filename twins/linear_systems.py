"""What twins of series share: polynomials, causal convolutions, and their identification."""

import torch
from torch import Tensor, nn

_RIDGE = 1e-3  # of the mean power: keeps taps that no drive has excited near 0


def polynomial(coefficients: Tensor, u: Tensor) -> Tensor:
    """Return sum of coefficients[k] u^k by Horner's rule."""
    value = coefficients[-1] * u
    for coefficient in coefficients[1:-1].flip(0):
        value = (value + coefficient) * u
    return value + coefficients[0]


def convolution(response: Tensor) -> Tensor:
    """Return the matrix C (samples, samples) for which f @ C is the causal convolution of f."""
    samples = len(response)
    padded = nn.functional.pad(response, (samples - 1, 0))
    return padded.unfold(0, samples, 1).flip(0)


def least_squares_response(force: Tensor, heard: Tensor) -> Tensor:
    """Return the impulse response (samples,) that best explains heard (rows, samples) from force.

    Minimises the squared error of the causal convolution over all rows and samples, which start at
    rest. With one filter for all times, sums over rows are sums along diagonals: the normal
    equations cost two products of (samples, rows) matrices, however many rows there are.
    """
    samples = force.shape[1]
    own, cross = force.T @ force, force.T @ heard
    normal = torch.zeros(samples, samples, dtype=force.dtype)
    right = torch.stack([cross.diagonal(k).sum() for k in range(samples)])
    for lag in range(samples):
        # normal[k, k + lag] = sum over t of f[t - k] f[t - k - lag] for t up to the last sample
        sums = own.diagonal(lag).cumsum(0).flip(0)
        normal.diagonal(lag).copy_(sums)
        normal.diagonal(-lag).copy_(sums)
    normal += _RIDGE * normal.diagonal().mean() * torch.eye(samples, dtype=force.dtype)
    response: Tensor = torch.linalg.solve(normal, right)
    return response

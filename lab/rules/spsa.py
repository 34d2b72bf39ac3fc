"""Simultaneous perturbation stochastic approximation: gradients from measured losses alone.

J. C. Spall, IEEE Transactions on Automatic Control 37, 332 (1992), eq. 2.2: all parameters move at
once by +c and -c times random signs; the difference of the two losses over 2c, times the signs, is
an unbiased estimate of the gradient but for terms of the order c**2.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lab.models import PhysicalNetwork
from lab.rules.base import Loss, Sums, mean, moved, size, trained

PROBES = 4  # two-sided, averaged
STEP = 0.02  # c, of the root mean square of each parameter tensor; at 0.1 the loss bends too much


class SimultaneousPerturbation:
    """Estimate the gradient by `probes` two-sided probes; nothing is differentiated."""

    def __init__(
        self,
        network: PhysicalNetwork,
        loss: Loss,
        *,
        seed: int,
        probes: int = PROBES,
        step: float = STEP,
    ) -> None:
        """Draw the signs from a generator of its own."""
        self._network = network
        self._loss = loss
        self._probes = probes
        self._step = step
        self._generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state; see `lab.stateful`."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])

    @torch.no_grad()
    def step(self, batch: Tensor) -> list[Sums]:
        """Put the estimate into .grad; measures the batch twice for each probe."""
        parameters = trained(self._network)
        gradients = [torch.zeros_like(p) for p in parameters]
        steps = [self._step * size(p) for p in parameters]
        sums: list[Sums] = []
        for _ in range(self._probes):
            signs = [self._signs(p) for p in parameters]
            by = [c * sign for c, sign in zip(steps, signs, strict=True)]
            up = self._at(parameters, by, batch, sums)
            down = self._at(parameters, [-b for b in by], batch, sums)
            for gradient, c, sign in zip(gradients, steps, signs, strict=True):
                gradient += (up - down) / (2 * c * self._probes) * sign
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
        return [mean(sums)]

    def _signs(self, like: Tensor) -> Tensor:
        return 2 * torch.randint(0, 2, like.shape, generator=self._generator).to(like) - 1

    def _at(
        self, parameters: list[nn.Parameter], by: list[Tensor], batch: Tensor, sums: list[Sums]
    ) -> float:
        with moved(parameters, by):
            value, seen = self._loss(self._network, batch)
        sums.append(seen)
        return float(value)

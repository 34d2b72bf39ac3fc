"""Parameter-exploring policy gradients with symmetric sampling: gradients from losses alone.

F. Sehnke et al., Neural Networks 23, 551 (2010), section 2.4: parameters are drawn as mean +- e, e
normal with a deviation sigma of its own for each parameter. The halves of a pair tell how the mean
should move; that some pairs do better than others tells which sigma should grow. The trained
network is the mean. Differs from the paper in that the baseline of a pair is the mean of the step's
pairs, which saw the same samples, that rewards are divided by their deviation, and that log sigma
moves instead of sigma, so that it stays positive.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lab.models import PhysicalNetwork
from lab.rules.base import Loss, Sums, mean, moved, size, trained

PAIRS = 4
SIGMA = 0.03  # at the start, of the root mean square of each parameter tensor
SIGMA_RATE = 0.05


class PolicyGradients:
    """Estimate the gradient from `pairs` of networks around the mean; adapt their spread."""

    def __init__(
        self, network: PhysicalNetwork, loss: Loss, *, seed: int, pairs: int = PAIRS
    ) -> None:
        """Draw the population from a generator of its own."""
        self._network = network
        self._loss = loss
        self._pairs = pairs
        self._generator = torch.Generator().manual_seed(seed)
        self.sigmas: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state and the spreads; see `lab.stateful`."""
        return {"generator": self._generator.get_state(), "sigmas": self.sigmas}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])
        self.sigmas = list(state["sigmas"])

    @torch.no_grad()
    def step(self, batch: Tensor) -> list[Sums]:
        """Put the mean's gradient into .grad and adapt sigma; measures the batch twice a pair."""
        parameters = trained(self._network)
        if not self.sigmas:
            self.sigmas = [torch.full_like(p, SIGMA * size(p)) for p in parameters]
        sums: list[Sums] = []
        normals: list[list[Tensor]] = []
        losses: list[list[float]] = []
        for _ in range(self._pairs):
            normal = [torch.randn(p.shape, generator=self._generator).to(p) for p in parameters]
            by = [sigma * n for sigma, n in zip(self.sigmas, normal, strict=True)]
            halves = [self._at(parameters, sign, by, batch, sums) for sign in (1, -1)]
            normals.append(normal)
            losses.append(halves)
        pairs = torch.tensor(losses, dtype=torch.float64)
        self._move(parameters, normals, (pairs[:, 0] - pairs[:, 1]) / 2)
        self._adapt(normals, -pairs.mean(1))
        return [mean(sums)]

    def _move(
        self, parameters: list[nn.Parameter], normals: list[list[Tensor]], slopes: Tensor
    ) -> None:
        for i, p in enumerate(parameters):
            drawn = torch.stack([normal[i] for normal in normals])
            p.grad = torch.tensordot(slopes.to(drawn), drawn, 1) / self._pairs / self.sigmas[i]

    def _adapt(self, normals: list[list[Tensor]], rewards: Tensor) -> None:
        if self._pairs < 2 or not rewards.std() > 0:
            return
        rewards = (rewards - rewards.mean()) / rewards.std()
        for i, sigma in enumerate(self.sigmas):
            drawn = torch.stack([normal[i] for normal in normals])
            towards = torch.tensordot(rewards.to(drawn), drawn.square() - 1, 1) / self._pairs
            sigma.mul_(torch.exp(SIGMA_RATE * towards))

    def _at(
        self,
        parameters: list[nn.Parameter],
        sign: int,
        by: list[Tensor],
        batch: Tensor,
        sums: list[Sums],
    ) -> float:
        with moved(parameters, [sign * b for b in by]):
            value, seen = self._loss(self._network, batch)
        sums.append(seen)
        return float(value)

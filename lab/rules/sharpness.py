"""Sharpness-aware training: the gradient where the loss nearby is worst.

P. Foret et al., "Sharpness-aware minimization for efficiently improving generalization", ICLR
(2021), eq. 3: the gradient g at the parameters p, then the one at p + rho g / |g|, which is used.
With physics-aware gradients it is the sharpness-aware training of physical networks (Nature
Communications, 2026): a flat minimum bears drift and another device better.
"""

import torch
from torch import Tensor

from lab.models import PhysicalNetwork
from lab.rules.base import Loss, Sums, moved, trained
from lab.stateful import Stateless

RHO = 0.05  # of the authors of ICLR 2021; |.| goes over all trained parameters


class SharpnessAware(Stateless):
    """Backpropagate at the worst point nearby."""

    def __init__(self, network: PhysicalNetwork, loss: Loss, *, rho: float = RHO) -> None:
        self._network = network
        self._loss = loss
        self._rho = rho

    def step(self, batch: Tensor) -> list[Sums]:
        """Put the gradient into .grad; measures the batch twice. The sums are those of p."""
        parameters = trained(self._network)
        value, sums = self._loss(self._network, batch)
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        known = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(parameters, gradients, strict=True)
        ]
        norm = torch.stack([g.double().square().sum() for g in known]).sum().sqrt()
        factor = float(self._rho / norm) if norm > 0 else 0.0
        with moved(parameters, [factor * g for g in known]):
            nearby, _ = self._loss(self._network, batch)
            nearby.backward()
        return [sums]

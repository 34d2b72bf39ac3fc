"""Direct feedback alignment: the output error goes to every block straight, by a random matrix.

A. Nokland, "Direct feedback alignment provides learning in deep neural networks", NeurIPS (2016),
eq. 7; for physical networks M. Nakajima et al., Nature Communications 13, 7847 (2022). A block's
parameters get the twin's local vector-Jacobian product of the projected error, and no gradient
crosses from one block to another; the last block gets its true one. A range penalty reaches the
block that it belongs to and the digital stages just before: no physics lies between.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lab.models import PhysicalNetwork
from lab.rules.base import Objective, Sums, trained


class DirectFeedback:
    """Project the output error e (samples, classes) to the output of each block but the last.

    feedback: a matrix (classes, passes * channels) for each of these, drawn at the first step:
    normal, with deviation 1 over the square root of the number of classes, so that each projected
    value is about as large as the error.
    """

    def __init__(self, network: PhysicalNetwork, objective: Objective, *, seed: int) -> None:
        """Draw the matrices from a generator of its own."""
        self._network = network
        self._objective = objective
        self._generator = torch.Generator().manual_seed(seed)
        self.feedback: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state and the matrices; see `lab.stateful`."""
        return {"generator": self._generator.get_state(), "feedback": self.feedback}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])
        self.feedback = list(state["feedback"])

    def step(self, batch: Tensor) -> list[Sums]:
        """Put the local gradients into .grad; measures the batch once."""
        cuts, outputs = self._network.cut_outputs(self._objective.features[batch])
        *hidden, logits = outputs
        output = logits.detach().requires_grad_()
        penalty = self._objective.penalty * self._network.penalty
        loss, sums = self._objective.of(output, self._network.penalty.detach(), batch)
        (error,) = torch.autograd.grad(loss, output)
        signals = [
            projected + of_penalty
            for projected, of_penalty in zip(
                self._projected(error, hidden), _by_entering(penalty, cuts), strict=True
            )
        ]
        roots = [
            (output, signal)
            for output, signal in zip(
                [*outputs, penalty], [*signals, error, torch.ones_like(penalty)], strict=True
            )
            if output.requires_grad  # not where a control has frozen it all
        ]
        if roots:
            values, gradients = zip(*roots, strict=True)
            torch.autograd.backward(values, gradients, inputs=trained(self._network))
        return [sums]

    def _projected(self, error: Tensor, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Return what each hidden output (samples, passes, channels) gets of the error."""
        if not self.feedback:
            self.feedback = [self._draw(error.shape[1], h[0].numel()).to(h) for h in hidden]
        return [
            (error @ matrix).reshape(h.shape)
            for matrix, h in zip(self.feedback, hidden, strict=True)
        ]

    def _draw(self, classes: int, values: int) -> Tensor:
        return torch.randn(classes, values, generator=self._generator) / math.sqrt(classes)


def _by_entering(penalty: Tensor, cuts: Sequence[Tensor]) -> list[Tensor]:
    """Return the penalty's gradient by what enters each block but the first."""
    if not cuts:
        return []
    return list(torch.autograd.grad(penalty, cuts, retain_graph=True, materialize_grads=True))

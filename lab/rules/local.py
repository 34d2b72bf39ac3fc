"""Physical local learning (PhyLL): every digital matrix learns from its own layer's outputs.

A. Momeni et al., "Backpropagation-free training of deep physical neural networks", Science 382,
1297 (2023). Each sample passes with its right label in the input, and with a wrong one; a matrix
learns to tell the two apart: log(1 + exp(k cos)), cos the cosine similarity of the two passes'
outputs, each about its mean. (The authors' published code for optics compares each pass with a
fixed random vector instead, and asks for every label at inference.) A third pass with a neutral
label, as at inference, trains the stages after the last measurement by cross-entropy.

Physics is measured and never differentiated: theta stays as drawn, as does what is digital before
a measurement, and the range penalty reaches the digital stages just before a layer only.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lab.labels import with_labels
from lab.models import Block, PhysicalNetwork
from lab.pat import excess
from lab.rules.base import Objective, Sums

PASSES = 3  # right label, wrong label, neutral
SHARPNESS = 5.0  # k, the factor of the authors' code


class LocalLearning:
    """Train the stages after each measurement by a loss of their own."""

    def __init__(self, network: PhysicalNetwork, objective: Objective, *, seed: int) -> None:
        """Freeze everything but these; draw the wrong labels from a generator of its own.

        The last `classes` features of `objective` are the label's place, neutral there.
        """
        self._network = network
        self._objective = objective
        self._generator = torch.Generator().manual_seed(seed)
        network.requires_grad_(False)
        for block in network.physical_blocks():
            block.after.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state; see `lab.stateful`."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])

    def step(self, batch: Tensor) -> list[Sums]:
        """Put the local gradients into .grad; measures the batch three times."""
        h = encoded = self._network.encode(self._features(batch))
        *earlier, last = self._network.physical_blocks()
        local = penalty = torch.zeros((), dtype=h.dtype)
        for block in earlier:
            y, beyond = _measure(block, h, encoded)
            penalty = penalty + beyond
            h = block.follow(y, h.detach(), encoded)
            right, wrong, _ = h.flatten(1).tensor_split(PASSES)
            local = local + contrast(right, wrong)
        y, beyond = _measure(last, h, encoded)
        neutral = slice(-len(batch), None)
        logits = last.follow(y[neutral], h.detach()[neutral], encoded[neutral])
        value, sums = self._objective.of(logits, penalty + beyond, batch)
        (value + local).backward()
        return [sums]

    def _features(self, batch: Tensor) -> Tensor:
        """Return the samples with right, wrong and neutral labels, (3 * samples, features)."""
        neutral, labels = self._objective.features[batch], self._objective.labels[batch]
        classes = self._objective.classes
        other = torch.randint(1, classes, labels.shape, generator=self._generator)
        wrong = (labels + other) % classes
        return torch.cat(
            [with_labels(neutral, part, classes) for part in (labels, wrong)] + [neutral]
        )


def contrast(right: Tensor, wrong: Tensor) -> Tensor:
    """Return the mean loss of the outputs of two passes, each (samples, values)."""
    alike = nn.functional.cosine_similarity(
        right - right.mean(1, keepdim=True), wrong - wrong.mean(1, keepdim=True)
    )
    return nn.functional.softplus(SHARPNESS * alike).mean()


def _measure(block: Block, h: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Return the measurement, without a gradient, and the drive's range penalty, with one."""
    x = block.drive(h, encoded)
    return block.measure_drive(x.detach()), excess(x)

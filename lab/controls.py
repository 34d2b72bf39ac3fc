"""Deliberately crippled networks beside the real one: they show which part does the work.

identity          the physics is replaced by its inputs' sum, without any clamp: what is left is
                  the digital part, linear but for what the config names
identity_clamped  the same with the drive's clamp: a clamp is a nonlinearity of its own
physics_only      digital parts stay as they were initialised, only theta is trained
digital_only      theta stays as it was drawn, only digital parts are trained
output_refit      in-silico training, then the stages after the last measurement are trained again,
                  on measured outputs: what a quick digital repair on the device gains
"""

import torch
from torch import Tensor, nn

from lab.models import PhysicalNetwork
from lab.systems.base import SystemDescription


class IdentityPhysics(nn.Module):
    """y = what is played, resampled to y's size: the mean of pairs, or the clamped sum of series.

    x (rows, x_size), theta (rows, theta_size) -> y (rows, y_size), normalised.
    """

    def __init__(self, description: SystemDescription, *, clamped: bool) -> None:
        super().__init__()
        self._series = description.drives == "series"
        self._clamped = clamped
        self._y_size = description.y.shape[0]

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return the drive itself."""
        if self._series:
            y = x + theta - 0.5
            return y.clamp(0, 1) if self._clamped else y
        y = (x + theta) / 2
        if y.shape[1] == self._y_size:
            return y
        return nn.functional.adaptive_avg_pool1d(y[:, None], self._y_size)[:, 0]


def freeze(network: PhysicalNetwork, parameters: list[nn.Parameter]) -> None:
    """Leave some of the network's parameters as they are from now on."""
    for parameter in parameters:
        parameter.requires_grad_(False)


class ClampCount:
    """Count how many drive values a `measure` was given at the ends of their range.

    In a series the played sum of x and theta counts: that is what is clamped.
    """

    def __init__(self, description: SystemDescription) -> None:
        self._series = description.drives == "series"
        self._clamped = self._values = 0

    def add(self, x: Tensor, theta: Tensor) -> None:
        """Count x (rows, x_size) and theta (rows, theta_size), normalised."""
        drives = [(x + theta - 0.5)] if self._series else [x, theta]
        for drive in drives:
            self._clamped += int(((drive <= 0) | (drive >= 1)).sum())
            self._values += drive.numel()

    @property
    def fraction(self) -> float | None:
        """Get the share of clamped values, 0 to 1; None before any."""
        return self._clamped / self._values if self._values else None


def refit_output(
    network: PhysicalNetwork, features: Tensor, labels: Tensor, *, steps: int = 1500, seed: int = 0
) -> None:
    """Train the stages after the last measurement on measured outputs of some samples.

    features (samples, n), labels (samples,). Measures every sample once; then AdamW at 3e-3,
    falling to 0 along a cosine, batches of 100.
    """
    with torch.no_grad():
        outputs = torch.cat([network.last_output(part) for part in features.split(100)])
    stages = network.output_stages()
    parameters = [p for p in stages.parameters() if p.requires_grad]
    if not parameters:
        return
    decays = {id(p): decay for p, decay in network.decays()}
    groups = [{"params": [p], "weight_decay": decays.get(id(p), 0.0)} for p in parameters]
    optimiser = torch.optim.AdamW(groups, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    network.initialise_output(outputs)
    for _ in range(steps):
        pick = torch.randint(len(labels), (100,), generator=generator)
        optimiser.zero_grad()
        logits = network.read_output(outputs[pick])
        nn.functional.cross_entropy(logits, labels[pick]).backward()
        optimiser.step()
        schedule.step()

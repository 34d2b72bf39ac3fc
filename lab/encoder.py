"""The first stage of a network: samples become the first layer's inputs; also by a trained matrix.

Out comes h (samples, passes, channels), float, without a unit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.errors import ConfigError
from lab.network_config import First, Linear, Repeat


@dataclass(frozen=True)
class Sizes:
    """What a stage is built for; `classes` is what the network's last stage puts out."""

    passes: int
    channels: int
    classes: int


def repeat(features: Tensor, channels: int) -> Tensor:
    """Repeat features (rows, n) to (rows, channels), filled up with ones; n is at most channels.

    0..1 in, 0..1 out.
    """
    repeats, rest = divmod(channels, features.shape[1])
    repeated = features.repeat_interleave(repeats, dim=1)
    return nn.functional.pad(repeated, (0, rest), value=1.0)


def series(features: Tensor, channels: int) -> Tensor:
    """Write features (rows, n) as series (rows, channels) around 0; n is at most channels."""
    return nn.functional.pad(features - 0.5, (0, channels - features.shape[1]))


class Mixing(nn.Module):
    """A matrix and an offset: values (samples, n) -> h (samples, passes, channels)."""

    def __init__(
        self, config: Linear, inputs: int, sizes: Sizes, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._spread, self._decay, self._sizes = config.spread, config.decay, sizes
        outputs = sizes.passes * sizes.channels
        self.weight = nn.Parameter(torch.randn(outputs, inputs, generator=generator))
        self.offset = nn.Parameter(torch.full((outputs,), config.mean))
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(inputs))

    def initialise(self, values: Tensor) -> None:
        """Take the mean sample, and scale the matrix so that each output has the stated spread."""
        self.centre.copy_(values.mean(0))
        spread = ((values - self.centre) @ self.weight.T).std(0).clamp_min(1e-6)
        self.weight.mul_((self._spread / spread)[:, None])

    def forward(self, values: Tensor) -> Tensor:
        """Return the mixed values."""
        mixed: Tensor = nn.functional.linear(values - self.centre, self.weight, self.offset)
        return mixed.reshape(-1, self._sizes.passes, self._sizes.channels)

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        """Return the matrix with its weight decay."""
        return [(self.weight, self._decay)]


class Encoder(nn.Module):
    """The first stage: features (samples, n) to h (samples, passes, channels)."""

    def __init__(
        self, config: First, sizes: Sizes, features: int, generator: torch.Generator
    ) -> None:
        """Build for so many features; raise ConfigError where they do not fit into the channels."""
        super().__init__()
        if not isinstance(config, Linear) and features > sizes.channels:
            raise ConfigError(
                f"network.first: {features} features do not fit into {sizes.channels} channels"
            )
        self._config = config
        self._sizes = sizes
        self.mixing = None
        if isinstance(config, Linear):
            self.mixing = Mixing(config, features, sizes, generator)

    def initialise(self, features: Tensor) -> None:
        """Take the mean sample, and scale the matrix so that each output has the stated spread."""
        if self.mixing is not None:
            self.mixing.initialise(features)

    def forward(self, features: Tensor) -> Tensor:
        """Return the encoded samples."""
        if self.mixing is not None:
            mixed: Tensor = self.mixing(features)
            return mixed
        s = self._sizes
        encode = repeat if isinstance(self._config, Repeat) else series
        return encode(features, s.channels)[:, None].expand(-1, s.passes, -1)

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        """Return the matrix with its weight decay."""
        return [] if self.mixing is None else self.mixing.decays()

"""The digital stages of a network, as modules; `lab.network_config` says what each is for.

What flows is h (samples, passes, channels), float, without a unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.encoder import Mixing, Sizes
from lab.errors import ConfigError
from lab.network_config import (
    After,
    Between,
    BrightnessFree,
    Last,
    Linear,
    Permute,
    Rescale,
    Skip,
    Standardise,
    Windows,
)

_DARK = 0.0125  # added to a spectrum's mean before dividing by it, so that dark rows stay finite
_LEAST_SPREAD = 1e-3  # of full scale: a channel that hardly moves is not blown up to noise
_INPUT_MEAN = 0.5  # of the rescaled measurement at the start
_SIGN_SPREAD = 0.3  # deviation of the factors of parallel passes


@dataclass(frozen=True)
class Seen:
    """What stages may look back at: the network's encoded input, and the layer's own."""

    input: Tensor
    layer: Tensor


class Stage(nn.Module):
    """A step from h to the next h; `initialise` sets what follows from training samples."""

    def initialise(self, h: Tensor, seen: Seen) -> None:
        """Take constants from h (samples, passes, channels) as it arrives here."""

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the next h."""
        raise NotImplementedError

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        """Return the parameters that decay, with their weight decay."""
        return []


def brightness_free(y: Tensor) -> Tensor:
    """Divide each measured row (..., channels) by its mean: pulse energy drops out."""
    return y / (y.mean(-1, keepdim=True) + _DARK)


class RescaleStage(Stage):
    """h * scale + shift; without a shift where it starts with random signs: theta is one."""

    def __init__(self, config: Rescale, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__()
        self._config = config
        shape = (sizes.passes, sizes.channels)
        if config.start == "signs":
            factors = config.spread + _SIGN_SPREAD * torch.randn(shape, generator=generator)
            signs = 2.0 * torch.randint(0, 2, shape, generator=generator) - 1
            self.scale = nn.Parameter(factors * signs)
            self.shift = None
        else:
            self.scale = nn.Parameter(torch.ones(shape))
            self.shift = nn.Parameter(torch.zeros(shape))

    def initialise(self, h: Tensor, seen: Seen) -> None:
        """Give every channel mean 0.5 and the stated spread."""
        if self.shift is not None:
            self.scale.copy_(self._config.spread / h.std(0).clamp_min(_LEAST_SPREAD))
            self.shift.copy_(_INPUT_MEAN - self.scale * h.mean(0))

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the rescaled h."""
        scaled = self.scale * h
        return scaled if self.shift is None else scaled + self.shift


class BrightnessFreeStage(Stage):
    """Each row over its mean."""

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return h without the row's brightness."""
        return brightness_free(h)


class StandardiseStage(Stage):
    """(h - mean) / deviation * spread, constants of the training samples."""

    def __init__(self, config: Standardise, sizes: Sizes) -> None:
        super().__init__()
        self._config = config
        self.mean: Tensor
        self.factor: Tensor
        self.register_buffer("mean", torch.zeros(sizes.passes, sizes.channels))
        self.register_buffer("factor", torch.ones(sizes.passes, sizes.channels))

    def initialise(self, h: Tensor, seen: Seen) -> None:
        """Measure mean and deviation."""
        self.mean.copy_(h.mean(0))
        deviation = h.std(0)
        if self._config.by == "pass":
            deviation = deviation.square().mean(1, keepdim=True).sqrt().expand_as(deviation)
        self.factor.copy_(self._config.spread / deviation.clamp_min(_LEAST_SPREAD))

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the standardised h."""
        return (h - self.mean) * self.factor


class SkipStage(Stage):
    """(1 - share) * h + share * an earlier h."""

    def __init__(self, config: Skip, sizes: Sizes) -> None:
        super().__init__()
        self._of_input = config.of == "input"
        share = torch.full((sizes.passes, 1), config.share)
        self.share: Tensor | nn.Parameter | float = (
            nn.Parameter(share) if config.trained else config.share
        )

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the mixture."""
        earlier = seen.input if self._of_input else seen.layer
        return (1 - self.share) * h + self.share * earlier


class PermuteStage(Stage):
    """The channels in another order."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__()
        self.order: Tensor
        self.register_buffer("order", torch.randperm(sizes.channels, generator=generator))

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the permuted h."""
        return h.index_select(2, self.order)


class WindowsStage(Stage):
    """Logits (samples, classes): standardised window means times a trained gain."""

    def __init__(self, config: Windows, sizes: Sizes) -> None:
        super().__init__()
        inner = torch.arange(config.margin, sizes.channels - config.margin)
        if len(inner) < sizes.classes:
            raise ConfigError(
                f"network.last: {sizes.classes} classes do not fit into {len(inner)} channels "
                "between the margins"
            )
        self._margin = config.margin
        self._sizes = [len(window) for window in inner.tensor_split(sizes.classes)]
        self.gain = nn.Parameter(torch.tensor(config.gain))
        self.weight = self.offset = None
        if config.weighted:
            self.weight = nn.Parameter(torch.ones(sizes.passes, sizes.channels))
            self.offset = nn.Parameter(torch.zeros(sizes.classes))
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(sizes.classes))
        self.register_buffer("deviation", torch.ones(sizes.classes))

    def initialise(self, h: Tensor, seen: Seen) -> None:
        """Measure mean and deviation of each window's mean."""
        means = self.means(h)
        self.mean.copy_(means.mean(0))
        self.deviation.copy_(means.std(0).clamp_min(_LEAST_SPREAD))

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the logits."""
        logits = self.gain * (self.means(h) - self.mean) / self.deviation
        return logits if self.offset is None else logits + self.offset

    def means(self, h: Tensor) -> Tensor:
        """Return each window's mean, (samples, classes)."""
        weighted = h if self.weight is None else h * self.weight
        inner = weighted.mean(1)[:, self._margin : self._margin + sum(self._sizes)]
        return torch.stack([w.mean(1) for w in inner.split(self._sizes, dim=1)], dim=1)


class LinearStage(Stage):
    """Logits (samples, classes) by a trained matrix; starts at zero."""

    def __init__(self, config: Linear, sizes: Sizes) -> None:
        super().__init__()
        self._decay = config.decay
        self.weight = nn.Parameter(torch.zeros(sizes.classes, sizes.passes * sizes.channels))
        self.offset = nn.Parameter(torch.zeros(sizes.classes))

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the logits."""
        return nn.functional.linear(h.flatten(1), self.weight, self.offset)

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        """Return the matrix with its weight decay."""
        return [(self.weight, self._decay)]


class MixStage(Stage):
    """All passes and channels of a layer mixed to those of the next layer."""

    def __init__(
        self, config: Linear, sizes: Sizes, following: Sizes, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.mixing = Mixing(config, sizes.passes * sizes.channels, following, generator)

    def initialise(self, h: Tensor, seen: Seen) -> None:
        """Give every output the stated spread."""
        self.mixing.initialise(h.flatten(1))

    def forward(self, h: Tensor, seen: Seen) -> Tensor:
        """Return the mixed h."""
        mixed: Tensor = self.mixing(h.flatten(1))
        return mixed

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        """Return the matrix with its weight decay."""
        return self.mixing.decays()


def build_stages(
    configs: Sequence[Between | Last], sizes: Sizes, generator: torch.Generator
) -> nn.ModuleList:
    """Return the stages' modules; random starts are drawn in their order."""
    return nn.ModuleList(_build(config, sizes, generator) for config in configs)


def build_between(
    configs: Sequence[After], sizes: Sizes, following: Sizes, generator: torch.Generator
) -> nn.ModuleList:
    """Return the stages between a layer of `sizes` and the next one, of `following`."""
    stages: list[Stage] = []
    for config in configs:
        if isinstance(config, Linear):
            stages.append(MixStage(config, sizes, following, generator))
            sizes = following
        else:
            stages.append(_build(config, sizes, generator))
    return nn.ModuleList(stages)


def _build(config: Between | Last, sizes: Sizes, generator: torch.Generator) -> Stage:
    match config:
        case Rescale():
            return RescaleStage(config, sizes, generator)
        case BrightnessFree():
            return BrightnessFreeStage()
        case Standardise():
            return StandardiseStage(config, sizes)
        case Skip():
            return SkipStage(config, sizes)
        case Permute():
            return PermuteStage(sizes, generator)
        case Windows():
            return WindowsStage(config, sizes)
        case Linear():
            return LinearStage(config, sizes)

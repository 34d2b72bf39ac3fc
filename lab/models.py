"""The default network: physical layers with element-wise digital parts between them.

Nothing digital mixes channels: between two measurements there is a per-channel affine map and a
skip of the encoded input; the logits are window means of the last measurement. What computes is
the physics.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lab.config import NetworkConfig
from lab.pat import Measure, PhysicalLayer

_INPUT_MEAN = 0.5  # of the rescaled measurement at the start
_DARK = 0.0125  # added to a spectrum's mean before dividing by it, so that dark rows stay finite
_MARGIN = 4  # outputs at either end that carry no class


def brightness_free(y: Tensor) -> Tensor:
    """Divide each measured row (rows, y_size) by its mean: pulse energy drops out."""
    return y / (y.mean(1, keepdim=True) + _DARK)


def encode(features: Tensor, x_size: int) -> Tensor:
    """Repeat features (rows, n) to (rows, x_size) and fill up with ones; ValueError if n is more.

    0..1 in, 0..1 out.
    """
    repeats, rest = divmod(x_size, features.shape[1])
    if repeats == 0:
        raise ValueError(f"{features.shape[1]} features do not fit into {x_size} channels")
    repeated = features.repeat_interleave(repeats, dim=1)
    return nn.functional.pad(repeated, (0, rest), value=1.0)


class PhysicalNetwork(nn.Module):
    """Features (rows, features) in 0..1 -> logits (rows, classes), through `layers` measurements.

    The features are repeated to fill the first layer's x, the rest is ones. `rescale` (an affine
    map per channel) and the logits' scale start from statistics of training data (`initialise`).
    """

    def __init__(
        self,
        layers: Sequence[PhysicalLayer],
        config: NetworkConfig,
        *,
        x_size: int,
        y_size: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.skip, self.spread = config.skip, config.spread
        self.layers = nn.ModuleList(layers)
        self.x_size = x_size
        self.windows = [
            len(w) for w in torch.arange(_MARGIN, y_size - _MARGIN).tensor_split(classes)
        ]
        later = len(layers) - 1
        self.scale = nn.Parameter(torch.ones(later, x_size))
        self.shift = nn.Parameter(torch.zeros(later, x_size))
        self.gain = nn.Parameter(torch.tensor(3.0))
        self.logit_mean: Tensor
        self.logit_std: Tensor
        self.register_buffer("logit_mean", torch.zeros(classes))
        self.register_buffer("logit_std", torch.ones(classes))
        if later and y_size != x_size:
            raise ValueError(f"layers of {x_size} inputs cannot follow layers of {y_size} outputs")

    def encode(self, features: Tensor) -> Tensor:
        """Return the first layer's x (rows, x_size) for features (rows, n)."""
        return encode(features, self.x_size)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (rows, classes); measures every row once per layer."""
        encoded = self.encode(features)
        h = encoded
        for i, layer in enumerate(self.layers):
            y = layer(h)
            if i < len(self.layers) - 1:
                h = self._next_input(i, y, encoded)
        return self._logits(y)

    @property
    def penalty(self) -> Tensor:
        """Get the summed range penalty of all layers of the last forward."""
        return torch.stack([layer.penalty for layer in self._physical()]).sum()

    def physical_parameters(self) -> list[nn.Parameter]:
        """Return every layer's theta."""
        return [layer.theta for layer in self._physical()]

    def digital_parameters(self) -> list[nn.Parameter]:
        """Return what is trained beside theta: the rescaling and the logits' gain."""
        return [self.scale, self.shift, self.gain]

    def set_measure(self, measure: Measure) -> None:
        """Let every layer measure with `measure` from now on."""
        for layer in self._physical():
            layer.set_physics(measure)

    def _physical(self) -> list[PhysicalLayer]:
        return [layer for layer in self.layers if isinstance(layer, PhysicalLayer)]

    def _next_input(self, i: int, y: Tensor, encoded: Tensor) -> Tensor:
        rescaled = self.scale[i] * brightness_free(y) + self.shift[i]
        return (1 - self.skip) * rescaled + self.skip * encoded

    def _window_means(self, y: Tensor) -> Tensor:
        inner = brightness_free(y)[:, _MARGIN : _MARGIN + sum(self.windows)]
        return torch.stack([w.mean(1) for w in inner.split(self.windows, dim=1)], dim=1)

    def _logits(self, y: Tensor) -> Tensor:
        return self.gain * (self._window_means(y) - self.logit_mean) / self.logit_std

    @torch.no_grad()
    def initialise(self, features: Tensor) -> None:
        """Set the rescaling and the logits' scale from training rows, layer by layer.

        Every channel of the rescaled measurement gets mean 0.5 and standard deviation `spread`.
        """
        encoded = self.encode(features)
        h = encoded
        for i, layer in enumerate(self.layers):
            y = layer(h)
            if i < len(self.layers) - 1:
                n = brightness_free(y)
                self.scale[i] = self.spread / n.std(0).clamp_min(1e-3)
                self.shift[i] = _INPUT_MEAN - self.scale[i] * n.mean(0)
                h = self._next_input(i, y, encoded)
        means = self._window_means(y)
        self.logit_mean.copy_(means.mean(0))
        self.logit_std.copy_(means.std(0).clamp_min(1e-3))


def build_network(
    measure: Measure,
    twin: nn.Module,
    config: NetworkConfig,
    *,
    x_size: int,
    theta_size: int,
    y_size: int,
    classes: int,
    seed: int,
) -> PhysicalNetwork:
    """Return a network whose theta starts as squares of uniform numbers (mostly dark)."""
    generator = torch.Generator().manual_seed(seed)
    physical = [
        PhysicalLayer(torch.rand(theta_size, generator=generator).square(), measure, twin)
        for _ in range(config.layers)
    ]
    return PhysicalNetwork(physical, config, x_size=x_size, y_size=y_size, classes=classes)

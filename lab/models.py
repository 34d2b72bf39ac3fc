"""Networks of physical layers and digital stages, as the training config describes them.

What mixes channels digitally is named in the config (`linear`); everything else digital is element
by element, so that what computes is the physics.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lab.encoder import Encoder, Sizes
from lab.errors import ConfigError
from lab.network_config import NetworkConfig, Theta
from lab.pat import Measure, PhysicalLayer
from lab.stages import Seen, Stage, build_between, build_stages

_STAGE_SEED = 1 << 32  # keeps the stages' random starts apart from theta's


Visit = Callable[[Stage, Tensor, Seen], None]
"""Called for every stage with what arrives there."""


def _pass_by(stage: Stage, h: Tensor, seen: Seen) -> None:
    """Do nothing."""


def _initialise(stage: Stage, h: Tensor, seen: Seen) -> None:
    stage.initialise(h, seen)


class Block(nn.Module):
    """One physical layer with the stages before and after it."""

    def __init__(
        self, before: nn.ModuleList, layer: PhysicalLayer, after: nn.ModuleList, *, signed: bool
    ) -> None:
        super().__init__()
        self.before, self.layer, self.after = before, layer, after
        self._signed = signed

    def forward(self, h: Tensor, encoded: Tensor, visit: Visit = _pass_by) -> Tensor:
        """Return what leaves the block for h (samples, passes, channels)."""
        y = self.measure(h, encoded, visit)
        return self.follow(y, h, encoded, visit)

    def measure(self, h: Tensor, encoded: Tensor, visit: Visit = _pass_by) -> Tensor:
        """Return the measurement alone."""
        return self.measure_drive(self.drive(h, encoded, visit))

    def drive(self, h: Tensor, encoded: Tensor, visit: Visit = _pass_by) -> Tensor:
        """Return what the layer is given, normalised; the layer itself clamps it to 0..1."""
        h = _through(self.before, h, Seen(encoded, h), visit)
        return (h + 1) / 2 if self._signed else h

    def measure_drive(self, x: Tensor) -> Tensor:
        """Return the measurement for a drive, from -1 to 1 where the block is signed."""
        y: Tensor = self.layer(x)
        return 2 * y - 1 if self._signed else y

    def follow(self, y: Tensor, h: Tensor, encoded: Tensor, visit: Visit = _pass_by) -> Tensor:
        """Return what leaves the block for a measurement of h."""
        return _through(self.after, y, Seen(encoded, h), visit)


def _through(stages: nn.ModuleList, h: Tensor, seen: Seen, visit: Visit) -> Tensor:
    for stage in cast(Iterable[Stage], stages):
        visit(stage, h, seen)
        h = stage(h, seen)
    return h


class PhysicalNetwork(nn.Module):
    """Features (samples, features) in 0..1 -> logits (samples, classes)."""

    def __init__(self, encoder: Encoder, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.encoder = encoder
        self.blocks = nn.ModuleList(blocks)

    def encode(self, features: Tensor) -> Tensor:
        """Return what enters the first block, (samples, passes, channels)."""
        encoded: Tensor = self.encoder(features)
        return encoded

    def forward(self, features: Tensor) -> Tensor:
        """Return logits; measures every sample once per pass and layer."""
        h = encoded = self.encode(features)
        for block in self.blocks:
            h = block(h, encoded)
        return h

    def cut_outputs(self, features: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what enters each block but the first, and what leaves each block.

        What enters is the output before, cut off: no gradient goes from block to block.
        """
        h = encoded = self.encode(features)
        cuts: list[Tensor] = []
        outputs: list[Tensor] = []
        for block in self.physical_blocks():
            if outputs:
                h, encoded = outputs[-1].detach().requires_grad_(), encoded.detach()
                cuts.append(h)
            outputs.append(block(h, encoded))
        return cuts, outputs

    @torch.no_grad()
    def initialise(self, features: Tensor) -> None:
        """Let every stage take its constants from training samples, layer by layer."""
        self.encoder.initialise(features)
        h = encoded = self.encode(features)
        for block in self.blocks:
            h = block(h, encoded, _initialise)

    def last_output(self, features: Tensor) -> Tensor:
        """Return the last layer's measurement, (samples, passes, y_size), for `read_output`."""
        h = encoded = self.encode(features)
        *earlier, last = self.physical_blocks()
        for block in earlier:
            h = block(h, encoded)
        return last.measure(h, encoded)

    def read_output(self, y: Tensor) -> Tensor:
        """Return the logits for measurements of the last layer."""
        return _through(self.output_stages(), y, Seen(y, y), _pass_by)

    @torch.no_grad()
    def initialise_output(self, y: Tensor) -> None:
        """Let the stages after the last measurement take their constants from y again."""
        _through(self.output_stages(), y, Seen(y, y), _initialise)

    @property
    def layers(self) -> list[PhysicalLayer]:
        """Get the physical layers, first one first."""
        return [block.layer for block in self.physical_blocks()]

    @property
    def penalty(self) -> Tensor:
        """Get the summed range penalty of all layers of the last forward."""
        return torch.stack([layer.penalty for layer in self.layers]).sum()

    def physical_parameters(self) -> list[nn.Parameter]:
        """Return every layer's theta."""
        return [layer.theta for layer in self.layers if layer.theta is not None]

    def digital_parameters(self) -> list[nn.Parameter]:
        """Return what is trained beside theta."""
        physical = {id(theta) for theta in self.physical_parameters()}
        return [p for p in self.parameters() if id(p) not in physical]

    def output_stages(self) -> nn.ModuleList:
        """Return the stages after the last measurement."""
        return self.physical_blocks()[-1].after

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        """Return the parameters with a weight decay above 0, and that decay."""
        parts = [m for m in self.modules() if isinstance(m, (Stage, Encoder))]
        return [(p, decay) for part in parts for p, decay in part.decays() if decay]

    def set_measure(self, measure: Measure) -> None:
        """Let every layer measure with `measure` from now on."""
        for layer in self.layers:
            layer.set_physics(measure)

    def physical_blocks(self) -> list[Block]:
        """Return the blocks, first one first."""
        return [block for block in self.blocks if isinstance(block, Block)]


def build_network(
    measure: Measure,
    twin: nn.Module,
    config: NetworkConfig,
    *,
    features: int,
    x_size: int,
    theta_size: int,
    y_size: int,
    classes: int,
    seed: int,
) -> PhysicalNetwork:
    """Return the network of a config; random starts follow from `seed`.

    Raises ConfigError where sizes do not fit.
    """
    if config.layers > 1 and y_size != x_size and not config.mixes_between:
        raise ConfigError(
            f"network.layers: layers of {x_size} inputs cannot follow layers of {y_size} outputs"
        )
    thetas = torch.Generator().manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + _STAGE_SEED)
    channels = x_size + theta_size if config.theta == "data" else x_size
    entering = Sizes(config.parallel, channels, classes)
    leaving = Sizes(config.parallel, y_size, classes)
    encoder = Encoder(config.first, entering, features, generator)
    blocks = []
    for i in range(config.layers):
        theta = _theta(config.theta, config.parallel, theta_size, thetas)
        blocks.append(
            Block(
                build_stages(config.before, entering, generator),
                PhysicalLayer(theta, measure, twin, x_size=x_size),
                build_between(config.after, leaving, entering, generator)
                if i < config.layers - 1
                else build_stages(config.last, leaving, generator),
                signed=config.signed,
            )
        )
    return PhysicalNetwork(encoder, blocks)


def _theta(kind: Theta, passes: int, size: int, generator: torch.Generator) -> Tensor | None:
    """Return the physical parameters at the start, (passes, size)."""
    if kind == "dark":
        return torch.rand(passes, size, generator=generator).square()
    if kind == "normal":
        return 0.5 + 0.1 * torch.randn(passes, size, generator=generator)
    return None

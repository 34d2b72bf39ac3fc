"""The training methods by name: each is a pair (what measures, what differentiates).

pat              the device measures, a frozen twin differentiates
                 (Wright et al., Nature 601, 549, 2022)
pat-refit        the same, and the twin keeps learning from what training measures
in-silico        the twin measures and differentiates; the device is met at the test only
in-silico-noise  the same, with Gaussian noise of half the twin's error on its outputs
ideal            the device measures, the plant's own adjoint differentiates (simulated benches)
dfa              as pat, but each block gets the output error by a random matrix
                 (Nokland, NeurIPS 2016; Nakajima et al., Nat. Commun. 13, 7847, 2022)
spsa             the device measures, nothing differentiates: pairs of random steps
                 (Spall, IEEE Trans. Automatic Control 37, 332, 1992)
pepg             the same, from a population of networks around the trained one
                 (Sehnke et al., Neural Networks 23, 551, 2010)
pat-sharpness    as pat, with the gradient where the loss nearby is worst
                 (Foret et al., ICLR 2021; for physical networks Nat. Commun. 2026)
phyll            the device measures, nothing differentiates it: digital matrices between layers
                 learn by losses of their own (Momeni et al., Science 382, 1297, 2023)

How a batch becomes a gradient is the method's update rule (`lab.rules`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.config import Method, TrainConfig
from lab.controls import IdentityPhysics
from lab.measure import DeviceMeasure, DevicePart, Share
from lab.pat import Measure, Physics
from lab.refit import OnlineRefit
from lab.stateful import Stateful
from twins.base import DigitalTwin


@dataclass(frozen=True)
class MethodParts:
    """What a network's layers get; `refit` where the twin keeps learning.

    share: what the layers get in one micro-batch of a step; None where steps are not split: nothing
    is measured, so that there is nothing to wait for, or the rule needs the whole batch at once.
    """

    measure: Measure
    differentiate: nn.Module
    share: Callable[[Share], Physics] | None = None
    refit: OnlineRefit | None = None

    def stateful(self) -> dict[str, Stateful]:
        """Return what has a memory beside the network, the twin and the device."""
        parts: dict[str, Stateful] = {} if self.refit is None else {"refit": self.refit}
        return parts | ({"noise": self.measure} if isinstance(self.measure, NoisyTwin) else {})


def choose_method(
    config: TrainConfig,
    device: DeviceMeasure,
    twin: DigitalTwin,
    *,
    twin_error: float,
    open_oracle: Callable[[DeviceMeasure | DevicePart], nn.Module],
) -> MethodParts:
    """Return the pair for a run; twin_error is the twin's normalised error on random inputs.

    Raises ValueError for `ideal` on a bench that is not simulated.
    """
    if config.control in ("identity", "identity_clamped"):
        clamped = config.control == "identity_clamped"
        identity = IdentityPhysics(device.description, clamped=clamped)
        return MethodParts(identity, identity)
    return _choose(config.method, device, twin, twin_error, open_oracle, config.seed)


def _choose(
    method: Method,
    device: DeviceMeasure,
    twin: DigitalTwin,
    twin_error: float,
    open_oracle: Callable[[DeviceMeasure | DevicePart], nn.Module],
    seed: int,
) -> MethodParts:
    match method:
        case "pat":
            return MethodParts(device, twin, lambda share: (device.part(share), twin))
        case "pat-refit":
            refit = OnlineRefit(twin, device, seed=seed)
            return MethodParts(
                refit.measure,
                twin,
                lambda share: (refit.part(device.part(share), share.first), twin),
                refit,
            )
        case "in-silico":
            return MethodParts(twin, twin)
        case "in-silico-noise":
            return MethodParts(
                NoisyTwin(twin, 0.5 * twin_error, seed, device.description.zero), twin
            )
        case "ideal":

            def truth(share: Share) -> Physics:
                part = device.part(share)
                return part, open_oracle(part)

            return MethodParts(device, open_oracle(device), truth)
        case "dfa" | "pat-sharpness":
            return MethodParts(device, twin)  # steps are not split
        case "spsa" | "pepg" | "phyll":
            return MethodParts(device, NoTwin())


class NoTwin(nn.Module):
    """Differentiate nothing: the method must do without."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Raise RuntimeError: a method that needs no twin has asked for a gradient."""
        raise RuntimeError("this method measures only: its physics has no gradient")


class NoisyTwin:
    """The twin's prediction plus Gaussian noise of `level` times each row's rms about `zero`."""

    def __init__(self, twin: DigitalTwin, level: float, seed: int, zero: float = 0.0) -> None:
        """Draw the noise from a generator of its own, seeded by `seed`."""
        self._twin = twin
        self._level = level
        self._zero = zero
        self._generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the generator's state; see `lab.stateful`."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self._generator.set_state(state["generator"])

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return noisy y (rows, y_size), normalised."""
        y: Tensor = self._twin(x, theta)
        noise = torch.randn(y.shape, generator=self._generator).to(y)
        return y + self._level * (y - self._zero).square().mean(1, keepdim=True).sqrt() * noise

"""The true gradient, for simulated benches only: the plant's own adjoint behind a twin's interface.

It bounds what any twin can reach; no real bench has one.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from drivers.mock.physics.circuit import CircuitPlant
from drivers.mock.physics.optics import OpticalPlant
from drivers.mock.physics.plate import OscillatingPlate
from drivers.spec import Array, ArraySpec
from drivers.transport import RigSettings, open_rigs
from lab.measure import DeviceMeasure, DevicePart
from lab.systems import series
from lab.systems.base import PhysicalSystem
from lab.systems.circuit import FULL_SCALE_V, CircuitSystem
from lab.systems.optics import OpticsSystem, pixel_fields
from lab.systems.plate import PlateSystem

_KINDS = (OpticsSystem, CircuitSystem, PlateSystem)


class NoiseFree(Protocol):
    """A simulated system without noise; arrays (rows, ...) in physical units, times_s (rows,)."""

    def evaluate(self, x: Array, theta: Array, times_s: Array) -> Array:
        """Return y."""
        ...

    def pull_back(self, x: Array, theta: Array, times_s: Array, g: Array) -> tuple[Array, Array]:
        """Return the gradients of sum(g * y) by x and theta."""
        ...


class OpticsFormula:
    """The simulated optics, seen through the system's encoding."""

    def __init__(self, plant: OpticalPlant, wavelengths_m: Array) -> None:
        self._plant = plant
        self._wavelengths_m = wavelengths_m

    def evaluate(self, x: Array, theta: Array, times_s: Array) -> Array:
        """Return y."""
        return self._plant.forward(pixel_fields(x, theta), times_s, self._wavelengths_m)

    def pull_back(self, x: Array, theta: Array, times_s: Array, g: Array) -> tuple[Array, Array]:
        """Return the gradients of sum(g * y) by x and theta."""
        field = pixel_fields(x, theta)
        by_field = self._plant.vjp(field, times_s, self._wavelengths_m, g)
        return by_field[:, 0::2], by_field[:, 1::2]


class CircuitFormula:
    """The simulated circuit, seen through the system's encoding."""

    def __init__(self, plant: CircuitPlant) -> None:
        self._plant = plant

    def evaluate(self, x: Array, theta: Array, times_s: Array) -> Array:
        """Return y."""
        return self._plant.forward(FULL_SCALE_V * series.encode(x, theta), times_s)

    def pull_back(self, x: Array, theta: Array, times_s: Array, g: Array) -> tuple[Array, Array]:
        """Return the gradients of sum(g * y) by x and theta: the same, for they are added."""
        by_drive = self._plant.vjp(FULL_SCALE_V * series.encode(x, theta), times_s, g)
        by_both = FULL_SCALE_V * by_drive * series.encode_slope(x, theta)
        return by_both, by_both


class PlateFormula:
    """The simulated plate, seen through the system's encoding."""

    def __init__(self, plant: OscillatingPlate) -> None:
        self._plant = plant

    def evaluate(self, x: Array, theta: Array, times_s: Array) -> Array:
        """Return y."""
        return self._plant.forward(series.encode(x, theta), times_s)

    def pull_back(self, x: Array, theta: Array, times_s: Array, g: Array) -> tuple[Array, Array]:
        """Return the gradients of sum(g * y) by x and theta: the same, for they are added."""
        by_drive = self._plant.vjp(series.encode(x, theta), times_s, g)
        by_both = by_drive * series.encode_slope(x, theta)
        return by_both, by_both


class PlantOracle(nn.Module):
    """Noise-free y(x, theta) of a simulated system at the drift state of the rows just measured.

    x (rows, x_size), theta (rows, theta_size) -> y (rows, y_size), normalised. Differentiates like
    a twin; call it right after `device` measured the same rows, as `pat` does.
    """

    def __init__(self, formula: NoiseFree, device: DeviceMeasure | DevicePart) -> None:
        """Look into the physics that `device` measures."""
        super().__init__()
        self._formula = formula
        self._device = device

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return what an instrument without noise would read."""
        times_s = np.array([key.time_s for key in self._device.last_keys])
        if len(times_s) != len(x):
            raise ValueError(f"{len(x)} rows asked, but the device measured {len(times_s)} last")
        y: Tensor = _PlantFunction.apply(x, theta, self, times_s)  # type: ignore[no-untyped-call]
        return y

    def evaluate(self, x: Tensor, theta: Tensor, times_s: Array) -> Array:
        """Return noise-free y (rows, y_size), normalised."""
        y = self._formula.evaluate(*self._physical(x, theta), times_s)
        return self._device.description.y.to_normalised(y)

    def pull_back(self, x: Tensor, theta: Tensor, times_s: Array, g: Array) -> tuple[Array, Array]:
        """Return the gradients of sum(g * y) by normalised x and theta."""
        d = self._device.description
        by_x, by_theta = self._formula.pull_back(*self._physical(x, theta), times_s, g / _span(d.y))
        return by_x * _span(d.x), by_theta * _span(d.theta)

    def _physical(self, x: Tensor, theta: Tensor) -> tuple[Array, Array]:
        d = self._device.description
        arrays = [t.detach().cpu().double().numpy() for t in (x, theta)]
        return d.x.to_physical(arrays[0]), d.theta.to_physical(arrays[1])


def _span(spec: ArraySpec) -> float:
    return spec.high - spec.low


class _PlantFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, oracle: PlantOracle, times_s: Array) -> Tensor:
        ctx.inputs = (x, theta, times_s)
        ctx.oracle = oracle
        return torch.from_numpy(oracle.evaluate(x, theta, times_s)).to(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, theta, times_s = ctx.inputs
        g = grads[0].detach().cpu().double().numpy()
        g_x, g_theta = ctx.oracle.pull_back(x, theta, times_s, g)
        return torch.from_numpy(g_x).to(x), torch.from_numpy(g_theta).to(theta), None, None


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated system as another process opens it: its physics, no instruments and no wires.

    kind: of the system, None where nothing has a formula. wavelengths_m: where optics are read.
    The plant's noise-free part is a function of its settings alone, so a copy has the same bits.
    """

    name: str
    kind: type[PhysicalSystem] | None
    rig: RigSettings | None
    wavelengths_m: Array | None

    def open_oracle(self, device: DeviceMeasure | DevicePart) -> PlantOracle:
        """Return the oracle; raise ValueError where there is no plant or no formula."""
        return PlantOracle(self._formula, device)

    @cached_property
    def _formula(self) -> NoiseFree:
        plant = None if self.rig is None else open_rigs({self.name: self.rig})[self.name].plant
        return _formula(self.name, self.kind, plant, self.wavelengths_m)


def simulation(system: PhysicalSystem, rig: RigSettings | None) -> Simulation:
    """Return what another process needs for the oracle of a system; rig: its own, if simulated."""
    kind = next((k for k in _KINDS if isinstance(system, k)), None)
    wavelengths_m = system.wavelengths_m if isinstance(system, OpticsSystem) else None
    return Simulation(system.description.name, kind, rig, wavelengths_m)


def open_oracle(
    system: PhysicalSystem, plant: object, device: DeviceMeasure | DevicePart
) -> PlantOracle:
    """Return the oracle of a simulated system; raise ValueError where there is no plant."""
    s = simulation(system, None)
    return PlantOracle(_formula(s.name, s.kind, plant, s.wavelengths_m), device)


def _formula(
    name: str, kind: type[PhysicalSystem] | None, plant: object, wavelengths_m: Array | None
) -> NoiseFree:
    if isinstance(plant, OpticalPlant) and kind is OpticsSystem and wavelengths_m is not None:
        return OpticsFormula(plant, wavelengths_m)
    if isinstance(plant, CircuitPlant) and kind is CircuitSystem:
        return CircuitFormula(plant)
    if isinstance(plant, OscillatingPlate) and kind is PlateSystem:
        return PlateFormula(plant)
    raise ValueError(
        f"{name}: the ideal gradient needs the simulated optics, "
        "circuit or plate (nothing else has a formula)"
    )

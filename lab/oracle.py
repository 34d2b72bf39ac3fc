"""The true gradient, for simulated benches only: the plant's own adjoint behind a twin's interface.

It bounds what any twin can reach; no real bench has one.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drivers.mock.optics import OpticalPlant
from drivers.spec import Array, ArraySpec
from lab.measure import DeviceMeasure, DevicePart
from lab.systems.base import PhysicalSystem
from lab.systems.optics import OpticsSystem, pixel_fields


class PlantOracle(nn.Module):
    """Noise-free y(x, theta) of the simulated optics at the drift state of the rows just measured.

    x (rows, 50), theta (rows, 50) -> y (rows, 50), normalised. Differentiates like a twin; call it
    right after `device` measured the same rows, as `pat` does.
    """

    def __init__(
        self, plant: OpticalPlant, system: OpticsSystem, device: DeviceMeasure | DevicePart
    ) -> None:
        """Look into `plant`, which `device` measures through `system`."""
        super().__init__()
        self._plant = plant
        self._wavelengths_m = system.wavelengths_m
        self._device = device

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return what an instrument without noise would read."""
        times_s = np.array([key.time_s for key in self._device.last_keys])
        if len(times_s) != len(x):
            raise ValueError(f"{len(x)} rows asked, but the device measured {len(times_s)} last")
        y: Tensor = _PlantFunction.apply(x, theta, self, times_s)  # type: ignore[no-untyped-call]
        return y

    def evaluate(self, x: Tensor, theta: Tensor, times_s: Array) -> Array:
        """Return noise-free y (rows, 50), normalised."""
        d = self._device.description
        field = self._fields(x, theta)
        return d.y.to_normalised(self._plant.forward(field, times_s, self._wavelengths_m))

    def pull_back(self, x: Tensor, theta: Tensor, times_s: Array, g: Array) -> tuple[Array, Array]:
        """Return the gradients of sum(g * y) by normalised x and theta, (rows, 50) each."""
        d = self._device.description
        field = self._fields(x, theta)
        by_field = self._plant.vjp(field, times_s, self._wavelengths_m, g / _span(d.y))
        return by_field[:, 0::2] * _span(d.x), by_field[:, 1::2] * _span(d.theta)

    def _fields(self, x: Tensor, theta: Tensor) -> Array:
        d = self._device.description
        arrays = [t.detach().cpu().double().numpy() for t in (x, theta)]
        return pixel_fields(d.x.to_physical(arrays[0]), d.theta.to_physical(arrays[1]))


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


def open_oracle(
    system: PhysicalSystem, plant: object, device: DeviceMeasure | DevicePart
) -> PlantOracle:
    """Return the oracle of a simulated system; raise ValueError where there is no plant."""
    if not (isinstance(plant, OpticalPlant) and isinstance(system, OpticsSystem)):
        raise ValueError(
            f"{system.description.name}: the ideal gradient needs a simulated bench "
            "(a real one has no formula)"
        )
    return PlantOracle(plant, system, device)

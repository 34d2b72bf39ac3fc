"""The circuit's twin: the textbook at gap 0, its hand-written gradient, its fit on the bench."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call

import twins.circuit
from drivers.mock.physics.circuit import CircuitPlant
from lab.bench import open_bench
from lab.config import TwinConfig
from lab.drives import random_series
from lab.twins import fit_stream, fit_system_twin
from twins.circuit import CircuitTwin
from twins.fitting import FitSettings, MeasuredRows, twin_error

BENCH = Path(__file__).parents[2] / "bench-circuit.toml"


def plant_rows(gap: float, rows: int, *, uniform: bool, device_seed: int = 0) -> MeasuredRows:
    """Noise-free rows of the plant, normalised, double precision."""
    if uniform:
        x = torch.rand(rows, 208, generator=torch.Generator().manual_seed(0)).double()
        theta = torch.full_like(x, 0.5)
    else:
        x, theta = (t.double() for t in random_series(rows, 208, 208, seed=0))
    u = (2 * (x + theta) - 2).clamp(-1, 1).numpy()
    plant = CircuitPlant(gap=gap, noise=0.0, device_seed=device_seed)
    y = plant.forward(10 * u, np.zeros(rows)) / 20 + 0.5
    return MeasuredRows(x, theta, torch.from_numpy(y))


@pytest.mark.parametrize("uniform", [True, False])
def test_at_gap_0_the_unfitted_textbook_twin_is_the_plant(uniform: bool) -> None:
    rows = plant_rows(0.0, 100, uniform=uniform)
    y = CircuitTwin().double()(rows.x, rows.theta).detach()
    assert float(((y - rows.y).abs() / rows.y).max()) < 1e-5
    assert float((y - rows.y).std() / rows.y.std()) < 1e-5  # about 0.5, so the stricter one


def test_the_textbook_amplifier_is_set_as_the_plants_at_gap_0() -> None:
    plant = CircuitPlant(gap=0.0)
    assert pytest.approx(plant._offset, rel=1e-12) == twins.circuit._OFFSET
    assert pytest.approx(plant._gain, rel=1e-12) == twins.circuit._GAIN


@pytest.mark.parametrize("device_seed", [0, 1, 2])
def test_at_gap_1_the_textbook_is_far_off(device_seed: int) -> None:
    rows = plant_rows(1.0, 200, uniform=True, device_seed=device_seed)
    error = twin_error(CircuitTwin().double(), rows)
    assert error.r2 < 0.95  # an error of a fifth of the output's own deviation


def test_the_hand_written_gradient_is_the_derivative() -> None:
    """By x, theta and every parameter; the sums stay within full scale."""
    twin = CircuitTwin(12).double()
    g = torch.Generator().manual_seed(0)
    x, theta = 0.3 + 0.4 * torch.rand(2, 3, 12, generator=g, dtype=torch.float64)
    names = [name for name, _ in twin.named_parameters()]

    def predict(*inputs: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional_call(
            twin, dict(zip(names, inputs[2:], strict=True)), (inputs[0], inputs[1])
        )
        return y

    moving = (x.requires_grad_(), theta.requires_grad_(), *twin.parameters())
    assert torch.autograd.gradcheck(predict, moving, atol=1e-7)


def test_frozen_and_trainable_twins_have_the_same_gradient_by_the_drive() -> None:
    gradients = []
    for trainable in (True, False):
        twin = CircuitTwin().requires_grad_(trainable)
        x = torch.rand(4, 208, generator=torch.Generator().manual_seed(0)).requires_grad_()
        twin(x, torch.full_like(x, 0.5)).square().sum().backward()
        gradients.append(x.grad)
    assert gradients[0] is not None
    assert gradients[0].abs().min() > 0
    assert torch.equal(gradients[0], gradients[1])


def test_a_short_fit_on_300_rows_of_the_bench_explains_99_per_cent() -> None:
    with open_bench(BENCH) as bench:
        twin = bench.new_twin("circuit")
        assert isinstance(twin, CircuitTwin)
        fitted = fit_system_twin(
            TwinConfig(rows=300),
            twin,
            bench.measure("circuit", stream=fit_stream(0)),
            settings=FitSettings(steps=100),
        )
    assert fitted.random.r2 > 0.99
    assert twin.values()["conductance"] > 1.8  # 1.2 on paper, 3 in the device
    assert not any(p.requires_grad for p in twin.parameters())

"""The plate's structured twin against the simulated plate."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import twins.linear_systems
import twins.plate
from drivers.mock.physics.plate import OscillatingPlate
from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.config import TwinConfig
from lab.drives import random_series
from lab.twins import fit_stream, fit_system_twin
from twins.fitting import FitSettings, MeasuredRows, fit_twin, twin_error
from twins.linear_systems import least_squares_response
from twins.plate import PlateTwin, textbook_response

BENCH = Path(__file__).parents[2] / "bench-plate.toml"


def plate_rows(gap: float, rows: int, *, device_seed: int = 0, seed: int = 0) -> MeasuredRows:
    """Noise-free rows of the plant, normalised, double precision."""
    x, theta = (t.double() for t in random_series(rows, 196, 196, seed=seed))
    drive = (2 * x - 1 + 2 * theta - 1).clamp(-1, 1).numpy()
    plant = OscillatingPlate(gap=gap, noise=0.0, device_seed=device_seed)
    return MeasuredRows(x, theta, torch.from_numpy(plant.forward(drive, np.zeros(rows)) / 2 + 0.5))


def textbook() -> PlateTwin:
    """Return the unfitted twin in double precision, its constants too."""
    twin = PlateTwin().double()
    twin.response.data = textbook_response(196)
    return twin


def test_at_gap_0_the_unfitted_textbook_twin_is_the_plant() -> None:
    rows = plate_rows(0.0, 300)
    signal = (rows.y - 0.5).square().mean().sqrt()
    for twin in (textbook(), PlateTwin().double()):
        y = twin(rows.x, rows.theta).detach()
        assert float((y - rows.y).abs().max() / signal) < 1e-5


def test_the_textbook_microphone_is_as_loud_as_the_plants_at_gap_0() -> None:
    assert pytest.approx(OscillatingPlate(gap=0.0)._gain, rel=1e-12) == twins.plate._GAIN


@pytest.mark.parametrize("device_seed", [0, 1, 2])
def test_at_gap_1_the_textbook_is_of_no_use(device_seed: int) -> None:
    error = twin_error(textbook(), plate_rows(1.0, 300, device_seed=device_seed))
    assert error.r2 < 0.1  # modes that are off by some per cent are out of phase after a few turns


@pytest.mark.parametrize("rows", [40, 400])
def test_least_squares_finds_the_impulse_response(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins.linear_systems, "_RIDGE", 1e-12)
    g = torch.Generator().manual_seed(0)
    response = torch.randn(50, generator=g, dtype=torch.float64)
    force = torch.randn(rows, 50, generator=g, dtype=torch.float64)
    heard = torch.stack([convolve(f, response) for f in force])
    found = least_squares_response(force, heard)
    torch.testing.assert_close(found, response, rtol=1e-6, atol=1e-6)


def convolve(force: Tensor, response: Tensor) -> Tensor:
    return torch.from_numpy(np.convolve(force.numpy(), response.numpy())[: len(force)])


def test_the_twin_is_causal_and_clamps_as_the_system_does() -> None:
    x, theta = torch.full((2, 1, 196), 0.5)
    later = x.clone()
    later[0, 100] = 0.9
    twin = PlateTwin()
    change = (twin(later, theta) - twin(x, theta))[0]
    assert not change[:100].any()
    assert change[100] != 0
    loud = torch.ones(1, 196)
    assert torch.equal(twin(loud, loud), twin(loud, theta))


def test_a_fit_on_600_rows_leaves_what_the_textbook_has_no_word_for() -> None:
    with open_bench(BENCH) as bench:
        fitted = fit_system_twin(
            TwinConfig(rows=600),
            bench.new_twin("plate"),
            bench.measure("plate", stream=fit_stream(0)),
            settings=FitSettings(steps=300),
        )
    # noise alone would leave 0.997; the rest is the stiffening of the modes
    assert 0.93 < fitted.random.r2 < 0.98
    assert not any(p.requires_grad for p in fitted.twin.parameters())


def test_without_stiffening_the_fit_is_nearly_exact() -> None:
    rows = plate_rows(0.0, 400)
    twin = PlateTwin()
    twin.response.data.zero_()
    fit_twin(twin, rows[:300], seed=0, settings=FitSettings(steps=200))
    assert twin_error(twin, rows[300:]).r2 > 0.99


def test_another_length_has_no_structured_twin() -> None:
    data = load_bench(BENCH).model_dump()
    data["instruments"]["sound"]["settings"]["samples"] = 100
    with open_bench(BenchConfig.model_validate(data)) as bench:
        with pytest.raises(ValueError, match=r"plate: .*maps 196 .*\(100,\).*neural"):
            bench.new_twin("plate")
        assert bench.new_twin("plate", "neural").y_size == 100

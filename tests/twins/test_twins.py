"""Digital twins and their fits, against the simulated bench."""

from pathlib import Path

import numpy as np
import pytest
import torch

import twins.optics
from drivers.mock.physics.optics import OpticalPlant
from drivers.spec import Array
from lab.bench import open_bench
from lab.config import TrainConfig, TwinConfig
from lab.datasets import Dataset, split
from lab.drives import random_channels
from lab.twins import fit_stream, fit_system_twin, task_drives
from twins.base import DigitalTwin
from twins.fitting import FitSettings, MeasuredRows, fit_twin, twin_error
from twins.neural import NeuralTwin
from twins.optics import OpticsTwin

BENCH = Path(__file__).parents[2] / "bench.toml"
WAVELENGTHS_M = np.linspace(773.365e-9, 776.635e-9, 101)[1::2]
FULL_SCALE_W = 1.6e-6


def plant_rows(gap: float, rows: int, *, uniform: bool, device_seed: int = 0) -> MeasuredRows:
    """Noise-free rows of the plant, normalised, double precision."""
    g = torch.Generator().manual_seed(0)
    if uniform:
        x, theta = torch.rand(2, rows, 50, generator=g).double()
    else:
        x, theta = (t.double() for t in random_channels(rows, 50, 50, seed=0))
    u = torch.stack((x, theta), -1).flatten(1).numpy()
    plant = OpticalPlant(gap=gap, noise=0.0, device_seed=device_seed)
    y: Array = plant.forward(-0.5 + 1.5 * u, np.zeros(rows), WAVELENGTHS_M) / FULL_SCALE_W
    return MeasuredRows(x, theta, torch.from_numpy(y))


def test_at_gap_0_the_unfitted_textbook_twin_is_the_plant() -> None:
    rows = plant_rows(0.0, 300, uniform=True)
    y = OpticsTwin().double()(rows.x, rows.theta).detach()
    assert float(((y - rows.y).abs() / rows.y).max()) < 1e-5


def test_the_textbook_detector_is_as_sensitive_as_the_plants_at_gap_0() -> None:
    expected = OpticalPlant(gap=0.0)._responsivity
    assert pytest.approx(expected, rel=1e-12) == twins.optics._RESPONSIVITY


def test_task_inputs_are_encoded_training_samples_and_no_others() -> None:
    features = np.linspace(0, 1, 150)[:, None] * np.ones(3)
    dataset = Dataset("made up", features, np.arange(150) % 3, ("a", "b", "c"), None, "made up")
    with open_bench(BENCH, start=False) as bench:
        description = bench.system("optics").description
    configs = [TrainConfig(seed=seed) for seed in (0, 0, 1)]
    first, again, other = (task_drives(c, dataset, description)[0] for c in configs)
    assert first.shape == (100, 50)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first[:, 48:].eq(1).all()
    train = features[split(dataset, "random", 0).train_idx, 0].astype(np.float32)
    assert set(first[:, 0].tolist()) <= set(train.tolist())


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("device_seed", [0, 1, 2])
def test_at_gap_1_the_textbook_is_far_off(uniform: bool, device_seed: int) -> None:
    rows = plant_rows(1.0, 300, uniform=uniform, device_seed=device_seed)
    error = twin_error(OpticsTwin().double(), rows)
    assert error.normalised >= 0.25
    assert error.shape_r2 < 0.5


def test_a_fit_on_600_rows_of_the_bench_reaches_7_per_cent() -> None:
    with open_bench(BENCH) as bench:
        fitted = fit_system_twin(
            TwinConfig(rows=600),
            bench.new_twin("optics"),
            bench.measure("optics", stream=fit_stream(0)),
            task_drives=random_channels(40, 50, 50, seed=3),
        )
    assert fitted.random.normalised < 0.07
    assert fitted.random.shape_r2 > 0.9
    assert fitted.task is not None
    assert fitted.task.r2 > 0.9
    assert fitted.hardware_rows == 600 + 100 + 40
    assert not any(p.requires_grad for p in fitted.twin.parameters())


@pytest.mark.parametrize("make", [OpticsTwin, lambda: NeuralTwin(50, 50, 50, hidden=20)])
def test_fits_are_reproducible_by_seed_and_report_progress(make: type[DigitalTwin]) -> None:
    rows = plant_rows(1.0, 64, uniform=False)
    short = FitSettings(steps=20, batch=16)
    digests: list[str] = []
    progress: list[tuple[int, int]] = []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        twin = make()
        fit_twin(
            twin,
            rows,
            seed=seed,
            settings=short,
            on_progress=lambda i, n, _: progress.append((i, n)),
        )
        digests.append(twin.digest())
    assert digests[0] == digests[1] != digests[2]
    assert progress[0] == (0, 20)
    assert len(progress) == 60


def test_the_neural_twin_learns_any_system() -> None:
    g = torch.Generator().manual_seed(0)
    x, theta = torch.rand(2, 1500, 6, generator=g)
    y = torch.stack([(x * theta).sum(1), torch.sin(3 * x[:, 0]) + theta[:, 1]], 1) * 1e-3
    torch.manual_seed(0)
    twin = NeuralTwin(6, 6, 2, hidden=64)
    fit_twin(twin, MeasuredRows(x, theta, y)[:1000], seed=0, settings=FitSettings(steps=1500))
    assert twin_error(twin, MeasuredRows(x, theta, y)[1000:]).r2 > 0.95


def test_shape_r2_is_blind_to_brightness() -> None:
    class Constant(DigitalTwin):
        kind = "constant"

        def __init__(self) -> None:
            super().__init__(1, 1, 3)
            self.one = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
            return torch.cat((x, 2 * x, theta), 1) * self.one

    x, theta = torch.rand(2, 50, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    y = torch.cat((x, 2 * x, theta), 1)
    brighter = MeasuredRows(x, theta, y * torch.linspace(0.5, 2, 50)[:, None])
    error = twin_error(Constant(), brighter)
    assert error.shape_r2 == pytest.approx(1.0, abs=1e-6)
    assert error.r2 < 0.9
    exact = twin_error(Constant(), MeasuredRows(x, theta, y))
    assert (exact.r2, exact.normalised) == (1.0, 0.0)


def test_rows_that_cannot_be_fitted_are_refused() -> None:
    rows = plant_rows(1.0, 4, uniform=True)
    with pytest.raises(ValueError, match="no rows"):
        fit_twin(OpticsTwin(), rows[:0], seed=0)
    rows.y[1, 2] = float("nan")
    with pytest.raises(ValueError, match="y has values that are not finite"):
        fit_twin(OpticsTwin(), rows, seed=0)

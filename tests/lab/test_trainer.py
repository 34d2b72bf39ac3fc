"""Networks, methods and the trainer, on the simulated bench through drivers and wire."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import Bench, open_bench
from lab.config import Method, TrainConfig, TwinConfig
from lab.datasets import Dataset, split
from lab.encoder import repeat
from lab.errors import Stopped
from lab.measure import DeviceMeasure
from lab.models import build_network
from lab.network_config import NetworkConfig
from lab.oracle import open_oracle
from lab.pat import pat
from lab.stages import brightness_free
from lab.train_result import EpochMetric
from lab.trainer import train
from lab.twins import FittedTwin, fit_stream, fit_system_twin
from twins.fitting import FitSettings, TwinError
from twins.neural import NeuralTwin
from twins.optics import OpticsTwin

BENCH = Path(__file__).parents[2] / "bench.toml"


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench(BENCH) as opened:
        yield opened


@pytest.fixture
def apparatus(bench: Bench) -> Apparatus:
    return open_apparatus(bench, "optics")


def blobs(rows: int = 30, classes: int = 3) -> Dataset:
    """Well separated classes of 4 features, for quick runs."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    features = np.clip(0.2 + 0.3 * labels[:, None] + 0.05 * rng.standard_normal((rows, 4)), 0, 1)
    names = tuple("abc"[:classes])
    return Dataset("blobs", features, labels, names, None, "generated")


def unfitted() -> FittedTwin:
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    return FittedTwin(OpticsTwin(), "structured", "optics", 0, 0, 0, 0.0, error, None)


def quick(method: Method, **changes: object) -> TrainConfig:
    values: dict[str, object] = {"method": method, "epochs": 2, "batch": 8}
    return TrainConfig(network=NetworkConfig(layers=2), **{**values, **changes})


@pytest.mark.parametrize("method", ["pat", "pat-refit", "in-silico", "in-silico-noise", "ideal"])
def test_every_pair_trains_and_counts_its_rows(apparatus: Apparatus, method: Method) -> None:
    seen: list[EpochMetric] = []
    result = train(quick(method), blobs(), unfitted(), apparatus, on_metric=seen.append)
    trained = sum(map(sum, result.confusion))
    train_rows = 30 - trained
    on_device = method in ("pat", "pat-refit", "ideal")
    assert result.rows == (2 * (train_rows + 2 * train_rows) if on_device else 0)
    assert result.test_rows == 2 * 2 * trained  # once more for the twin's error and the clamp
    assert (result.twin_accuracy is None) == on_device
    assert [m.epoch for m in result.curve] == [1, 2] == [m.epoch for m in seen]
    assert np.trace(result.confusion) / trained == pytest.approx(result.test_accuracy)
    assert result.instrument_hours == pytest.approx(result.rows * 0.75 / 3600)
    assert len(result.spectrum["measured"]) == len(result.spectrum["twin"]) == 50
    assert (result.curve[-1].refits_accepted + result.curve[-1].refits_rolled_back > 0) == (
        method == "pat-refit"
    )


def test_training_is_reproducible_bit_for_bit(apparatus: Apparatus) -> None:
    results = [train(quick("pat-refit"), blobs(), unfitted(), apparatus) for _ in range(2)]
    for name, value in results[0].network_state.items():
        assert torch.equal(value, results[1].network_state[name])
    assert results[0].twin_digest == results[1].twin_digest
    other = train(quick("pat-refit", seed=1), blobs(), unfitted(), apparatus)
    shift = "blocks.0.after.1.shift"
    assert not torch.equal(other.network_state[shift], results[0].network_state[shift])


def test_the_shared_twin_is_not_changed(apparatus: Apparatus) -> None:
    fitted = unfitted()
    before = fitted.twin.digest()
    result = train(quick("pat-refit"), blobs(), fitted, apparatus)
    assert fitted.twin.digest() == before != result.twin_digest


def test_training_learns(apparatus: Apparatus) -> None:
    config = quick("ideal", epochs=12)
    result = train(config, blobs(60), unfitted(), apparatus)
    assert result.curve[-1].loss < 0.5 * result.curve[0].loss
    assert result.test_accuracy > 0.8


def test_a_run_stops_between_steps(apparatus: Apparatus) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Stopped, match="epoch 1 of 2"):
        train(quick("pat"), blobs(), unfitted(), apparatus, stop=lambda: next(answers))


def test_in_silico_and_pat_are_tested_at_the_same_device_age(bench: Bench) -> None:
    opened: list[tuple[int, int]] = []
    real = open_apparatus(bench, "optics")

    def spy(stream: int, first: int) -> DeviceMeasure:
        opened.append((stream, first))
        return real.open_device(stream, first)

    apparatus = Apparatus(real.description, spy, real.open_oracle)
    rows = {}
    for method in ("pat", "in-silico"):
        rows[method] = train(quick(method), blobs(), unfitted(), apparatus).rows
    assert opened[1] == opened[3] == (0, rows["pat"])
    assert rows["in-silico"] == 0


@pytest.mark.parametrize("limits", ["", "limits = { theta = [0.2, 0.6], x = [-0.5, 0.9] }\n"])
def test_the_oracles_gradient_is_that_of_its_value(tmp_path: Path, limits: str) -> None:
    path = tmp_path / "bench.toml"
    # gap 0: no DAC, whose steps a finite difference would see
    path.write_text(BENCH.read_text().replace("gap = 1.0", "gap = 0.0") + limits)
    with open_bench(path) as bench:
        device = bench.measure("optics", stream=1)
        oracle = open_oracle(bench.system("optics"), bench.plant("optics"), device).double()
        g = torch.Generator().manual_seed(0)
        x, theta = (0.1 + 0.8 * torch.rand(2, 4, 50, generator=g, dtype=torch.float64)).unbind(0)
        device(x, theta)  # the oracle looks at the rows measured last
        for moving in (x, theta):
            moving.requires_grad_()
            (gradient,) = torch.autograd.grad(oracle(x, theta).sum(), moving)
            moving.requires_grad_(False)
            direction = torch.randn(4, 50, generator=g, dtype=torch.float64)
            step = 1e-5 * direction
            slope = 0.0
            for sign in (1, -1):
                shifted = [t + sign * step if t is moving else t for t in (x, theta)]
                slope += sign * float(oracle(*shifted).sum()) / 2e-5
            assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_the_oracles_value_is_the_noise_free_device(tmp_path: Path) -> None:
    quiet = tmp_path / "bench.toml"
    quiet.write_text(BENCH.read_text().replace("noise = 1.0", "noise = 0.0"))
    with open_bench(quiet) as bench:
        device = bench.measure("optics", stream=1)
        oracle = open_oracle(bench.system("optics"), bench.plant("optics"), device).double()
        g = torch.Generator().manual_seed(0)
        x, theta = torch.rand(2, 8, 50, generator=g, dtype=torch.float64).requires_grad_()
        y = pat(x, theta, device, oracle)
        # the wire's rounding (0.0001 dB), the shaper's block above 40 dB and the ADC's half step:
        # together within 2e-3 of full scale
        assert float((oracle(x, theta) - y).detach().abs().max()) < 2e-3
        with pytest.raises(ValueError, match="8 last"):
            oracle(x[:3], theta[:3])


def test_ideal_is_refused_where_nothing_is_simulated(bench: Bench) -> None:
    with pytest.raises(ValueError, match="the ideal gradient needs the simulated"):
        open_oracle(bench.system("optics"), None, bench.measure("optics"))


def test_initialisation_gives_every_channel_its_range() -> None:
    def device(x: Tensor, theta: Tensor) -> Tensor:
        return 0.05 + 0.1 * x.roll(3, 1) * theta.flip(1)

    network = build_network(
        device,
        OpticsTwin(),
        NetworkConfig(layers=3),
        features=12,
        x_size=50,
        theta_size=50,
        y_size=50,
        classes=4,
        seed=0,
    )
    features = torch.rand(200, 12, generator=torch.Generator().manual_seed(0))
    network.initialise(features)
    encoded = network.encode(features)
    theta = network.layers[0].theta
    assert theta is not None
    n = brightness_free(device(encoded[:, 0], theta.detach()))
    rescale = network.blocks[0].after[1]
    rescaled = (rescale.scale * n + rescale.shift).detach()
    torch.testing.assert_close(rescaled.mean(0), torch.full((50,), 0.5), atol=1e-4, rtol=0)
    assert float(rescaled.std(0).max()) == pytest.approx(0.2, abs=1e-4)
    logits = network(features).detach()
    torch.testing.assert_close(logits.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(logits.std(0), torch.full((4,), 3.0), atol=1e-3, rtol=0)


def test_choosing_settings_never_reads_test_rows(apparatus: Apparatus) -> None:
    dataset = blobs(60)
    rows = split(dataset, "random", 0)
    hidden = replace(dataset, features=dataset.features.copy(), labels=dataset.labels.copy())
    hidden.features[rows.test_idx] = np.nan
    config = quick("pat", holdout="validation", epochs=1)
    seen, unseen = (train(config, d, unfitted(), apparatus) for d in (dataset, hidden))
    assert seen.confusion == unseen.confusion
    assert np.sum(seen.confusion) == len(rows.validation_idx)
    assert np.isfinite(unseen.curve[0].loss)


def test_features_are_repeated_and_filled_with_ones() -> None:
    encoded = repeat(torch.tensor([[0.25] * 6 + [0.5] * 6]), 50)
    assert encoded[0].tolist() == [0.25] * 24 + [0.5] * 24 + [1.0] * 2


def test_a_data_driven_twin_can_be_fitted_to_the_bench(bench: Bench) -> None:
    twin = bench.new_twin("optics", "neural")
    assert isinstance(twin, NeuralTwin)
    config = TwinConfig(kind="neural", rows=60)
    short = FitSettings(steps=30)
    fitted = fit_system_twin(
        config, twin, bench.measure("optics", stream=fit_stream(0)), settings=short
    )
    assert fitted.hardware_rows == 160
    assert fitted.random.normalised < 1.0

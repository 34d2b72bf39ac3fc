"""The oscillating plate as a system: encoding, waveforms, flags, its oracle, its bench file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drivers.mock.firmware.audio import AudioFault
from drivers.mock.physics.plate import OscillatingPlate
from drivers.mock.physics.plate_table import REST_SAMPLES
from drivers.row_key import row_keys
from drivers.spec import Array
from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.errors import ConfigError
from lab.oracle import open_oracle
from lab.systems.plate import RING_DOWN_SAMPLES

FILE = Path(__file__).parents[2] / "bench-plate.toml"
FLOAT32 = 1e-7


def configured(rig: dict[str, Any] | None = None, **sound: Any) -> BenchConfig:
    """Return the bench file with fields of its rig and of its instrument changed."""
    data = load_bench(FILE).model_dump()
    data["rigs"]["plate"] |= rig or {}
    data["instruments"]["sound"] |= sound
    return BenchConfig.model_validate(data)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench(FILE) as opened:
        yield opened


def series(rows: int, seed: int = 0) -> tuple[Array, Array]:
    """Return x and theta, of which about a quarter is clamped."""
    x, theta = np.random.default_rng(seed).uniform(-1, 1, (2, rows, 196))
    return x, theta


def test_the_sum_of_both_series_is_played_clamped() -> None:
    with open_bench(configured({"gap": 0.0, "noise": 0.0})) as bench:
        x, theta = series(5)
        rows = bench.system("plate").transform(x, theta)
    drive = np.clip(x + theta, -1, 1)
    assert 0.1 < (drive != x + theta).mean() < 0.4
    expected = OscillatingPlate(gap=0.0).forward(drive, np.zeros(5))
    np.testing.assert_allclose(rows.y, expected, atol=FLOAT32)
    assert not rows.saturated.any()
    assert rows.out_of_sync is not None
    assert not rows.out_of_sync.any()


def test_a_batch_is_cut_into_waveforms_and_rows_keep_their_keys(bench: Bench) -> None:
    system, port = bench.system("plate"), bench.rigs["plate"].instruments["audio"]
    x, theta = series(250)
    keys = row_keys(3, 0, 250, 0.1)
    before = port.exchanges
    together = system.transform(x, theta, keys)
    assert port.exchanges - before == 3  # 100, 100 and 50 rows
    order = np.random.default_rng(1).permutation(250)[:7]
    again = system.transform(x[order], theta[order], [keys[i] for i in order])
    assert np.array_equal(again.y, together.y[order])


def test_rows_are_measured_until_it_is_told_to_stop(bench: Bench) -> None:
    answers = iter([False, True])
    rows = bench.system("plate").transform(*series(250), stop=lambda: next(answers))
    assert len(rows.y) == 100


def test_rows_that_lost_a_frame_are_flagged(bench: Bench) -> None:
    system = bench.system("plate")
    bench.rigs["plate"].instruments["audio"].inject(AudioFault.SLIP)
    rows = system.transform(*series(10))
    assert rows.out_of_sync is not None
    assert np.flatnonzero(rows.out_of_sync).tolist() == [5]


def test_a_microphone_at_full_scale_is_flagged() -> None:
    with open_bench(configured({"noise": 50.0})) as bench:
        rows = bench.system("plate").transform(*series(5))
    assert rows.saturated.all()
    assert np.abs(rows.y).max() == 1.0


def test_the_bench_ends_in_silence() -> None:
    with open_bench(FILE) as bench:
        port = bench.rigs["plate"].instruments["audio"]
        assert port.running
    assert not port.running


def test_a_quieter_speaker_needs_quieter_series() -> None:
    quieter = configured(limits={"drive": (-0.5, 0.5)})
    with pytest.raises(ConfigError, match="narrow x and theta too"), open_bench(quieter):
        pass
    data = quieter.model_dump()
    data["systems"]["plate"]["limits"] = {"x": (-0.3, 0.3), "theta": (-0.2, 0.2)}
    with open_bench(BenchConfig.model_validate(data)) as bench:
        loudest = np.full((1, 196), 0.3), np.full((1, 196), 0.2)
        assert len(bench.system("plate").transform(*loudest).y) == 1


def test_a_silence_in_which_the_plate_still_rings_is_refused() -> None:
    hurried = configured(settings={"row_frames": 4100, "longest_latency_frames": 3000})
    with (
        pytest.raises(ConfigError, match=r"3904 samples of silence.*4000 needed"),
        open_bench(hurried),
    ):
        pass
    assert RING_DOWN_SAMPLES == REST_SAMPLES


def test_the_oracle_is_the_noise_free_device_and_its_gradient() -> None:
    noiseless = configured({"noise": 0.0})
    with open_bench(noiseless) as bench:
        device = bench.measure("plate", stream=4)
        oracle = open_oracle(bench.system("plate"), bench.plant("plate"), device).double()
        g = torch.Generator().manual_seed(0)
        x, theta = torch.rand(2, 6, 196, generator=g, dtype=torch.float64)
        x.requires_grad_()
        theta.requires_grad_()
        measured = device(x, theta)
        y = oracle(x, theta)
        # 12-bit converters at either end
        assert float((y - measured).detach().abs().max()) < 2e-3
        weights = torch.rand(y.shape, generator=g, dtype=torch.float64)
        g_x, g_theta = torch.autograd.grad((y * weights).sum(), (x, theta))
    assert torch.equal(g_x, g_theta)
    clamped = (x + theta - 1).detach().abs() > 0.5
    assert clamped.any()
    assert g_x[clamped].abs().max() == 0.0
    assert (g_x[~clamped] != 0.0).all()


def test_a_real_plate_has_no_oracle(bench: Bench) -> None:
    with pytest.raises(ValueError, match="plate: the ideal gradient needs the simulated optics"):
        open_oracle(bench.system("plate"), None, bench.measure("plate"))


def test_the_oracles_gradient_is_that_of_its_value_in_normalised_units() -> None:
    with open_bench(configured({"gap": 0.0, "noise": 0.0})) as bench:  # no DAC, whose steps count
        device = bench.measure("plate")
        oracle = open_oracle(bench.system("plate"), bench.plant("plate"), device).double()
        g = torch.Generator().manual_seed(0)
        x, theta, direction = torch.rand(3, 2, 196, generator=g, dtype=torch.float64)
        device(x, theta)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(oracle(x, theta).square().sum(), x)
        with torch.no_grad():
            step = 1e-7 * (direction - 0.5)
            high, low = (oracle(x + s * step, theta).square().sum() for s in (1, -1))
        slope = float(high - low) / 2e-7
        assert slope == pytest.approx(float((gradient * (direction - 0.5)).sum()), rel=1e-4)

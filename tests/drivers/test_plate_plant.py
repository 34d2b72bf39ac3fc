"""The simulated plate: reproducible noise, a correct adjoint, the gap dial, rest between rows."""

from dataclasses import replace

import numpy as np
import pytest

from drivers.mock.physics import plate
from drivers.mock.physics.plate import OscillatingPlate
from drivers.mock.physics.plate_table import FULL_SCALE, NOISE_1, REST_SAMPLES
from drivers.row_key import RowKey
from drivers.spec import Array


def drives(rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, 196))


def loud(rows: int, rng: np.random.Generator) -> Array:
    """Square waves at full scale, from 0.003 to 0.3 cycles a sample: what excites a plate most."""
    cycles = np.linspace(0.003, 0.3, rows)[:, None] * np.arange(196)
    return np.sign(np.sin(2 * np.pi * (cycles + rng.random((rows, 1)))))


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 3.0])
def test_vjp_equals_finite_differences(gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the DAC's steps, whose derivative is taken as the identity by definition
    monkeypatch.setattr(plate, "GAP_1", replace(plate.GAP_1, dac_step=0.0))
    plant = OscillatingPlate(gap=gap)
    rng = np.random.default_rng(1)
    drive, g = drives(4), rng.standard_normal((4, 196))
    times_s = np.array([0.0, 700.0, 3000.0, 9000.0])
    direction, step = rng.standard_normal(drive.shape), 1e-6
    high = plant.forward(drive + step * direction, times_s)
    low = plant.forward(drive - step * direction, times_s)
    expected = ((high - low) * g).sum(axis=1) / (2 * step)
    found = (plant.vjp(drive, times_s, g) * direction).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_vjp_is_causal() -> None:
    g = np.zeros((1, 196))
    g[0, 100] = 1.0
    found = OscillatingPlate().vjp(drives(1), np.zeros(1), g)[0]
    assert np.abs(found[101:]).max() == 0.0
    assert np.abs(found[:101]).min() > 0.0


def test_noise_follows_from_the_row_key_alone() -> None:
    keys = [RowKey(3, i, 100.0 * i) for i in range(6)]
    drive = drives(6)
    plant = OscillatingPlate(seed=5)
    first = plant.measure(drive, keys)
    order = [4, 0, 5, 2]  # another order and batch, with a stranger in between
    plant.measure(drive[:1], [RowKey(99, 4, 0.0)])
    again = plant.measure(drive[order], [keys[i] for i in order])
    assert np.array_equal(again, first[order])
    alone = [plant.measure(drive[i : i + 1], [keys[i]])[0] for i in range(6)]
    assert np.array_equal(alone, first)
    assert not np.array_equal(OscillatingPlate(seed=6).measure(drive, keys), first)


def test_rows_take_the_announced_keys_in_order_and_then_their_own() -> None:
    keys = [RowKey(7, i, 0.1 * i) for i in range(4)]
    drive = drives(4)
    plant, reference = OscillatingPlate(), OscillatingPlate()
    plant.announce(RowKey(1, 1, 0.0))  # of a call that failed before anything was played
    for key in keys:
        plant.announce(key)
    assert np.array_equal(plant.play(drive), reference.measure(drive, keys))
    own = plant.play(drive)
    assert np.array_equal(own, reference.play(drive))
    assert not np.array_equal(plant.play(drive), own)


def test_noise_is_that_of_the_table_and_scales_with_the_factor() -> None:
    silence = np.zeros((300, 196))
    keys = [RowKey(1, i, 0.0) for i in range(300)]
    once, twice = (OscillatingPlate(noise=n).measure(silence, keys) for n in (1.0, 2.0))
    assert once.std() * FULL_SCALE == pytest.approx(NOISE_1.room, rel=0.02)
    assert twice.std() * FULL_SCALE == pytest.approx(2 * NOISE_1.room, rel=0.02)


def test_noise_and_gap_zero_switch_everything_off() -> None:
    plant = OscillatingPlate(gap=0.0, noise=0.0)
    drive = drives(3)
    clean = plant.forward(drive, np.zeros(3))
    np.testing.assert_array_equal(plant.forward(drive, np.full(3, 4e3)), clean)
    np.testing.assert_array_equal(plant.measure(drive, [RowKey(0, 1, 2e3)] * 3), clean)


def test_devices_differ_by_seed_and_drift_with_time() -> None:
    drive = drives(1)
    one, two = (OscillatingPlate(device_seed=s) for s in (0, 1))
    a = one.forward(drive, np.zeros(1))
    assert not np.allclose(a, two.forward(drive, np.zeros(1)), atol=1e-2)
    assert not np.allclose(a, one.forward(drive, np.full(1, 2e3)), atol=1e-3)


@pytest.mark.parametrize("device_seed", [0, 1, 2])
@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0])
def test_the_loudest_row_rings_down_far_below_the_noise(gap: float, device_seed: int) -> None:
    plant = OscillatingPlate(gap=gap, device_seed=device_seed)
    drive = np.zeros((50, 196 + REST_SAMPLES + 196))
    drive[:, :196] = loud(50, np.random.default_rng(2))
    heard = FULL_SCALE * plant.forward(drive, np.zeros(50))
    assert np.abs(heard[:, :196]).max() > 1.0
    assert np.abs(heard[:, 196 + REST_SAMPLES :]).max() < 0.1 * NOISE_1.room


@pytest.mark.parametrize("device_seed", [0, 1, 2, 3])
def test_the_widest_gap_stays_stable_at_full_drive(device_seed: int) -> None:
    plant = OscillatingPlate(gap=3.0, device_seed=device_seed)
    drive = np.tile(loud(60, np.random.default_rng(3)), 10)  # ten times as long as a row
    z = plant._feel(drive, np.zeros(60))
    assert np.isfinite(z).all()
    assert np.abs(z[:, 980:]).max() < 1.5 * np.abs(z[:, :980]).max()


@pytest.mark.parametrize(("gap", "noise"), [(-0.1, 1), (3.1, 1), (1, -1), (float("nan"), 1)])
def test_impossible_dials_are_refused(gap: float, noise: float) -> None:
    with pytest.raises(ValueError, match="gap"):
        OscillatingPlate(gap=gap, noise=noise)

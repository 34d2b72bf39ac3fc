"""The simulated circuit: reproducible noise, a correct adjoint, the gap dial, ring-down."""

from dataclasses import replace

import numpy as np
import pytest

from drivers.mock.physics import circuit, circuit_kernels
from drivers.mock.physics.circuit import CircuitPlant
from drivers.mock.physics.circuit_table import NOISE_1, RESPONSE_UNIT_V
from drivers.row_key import RowKey
from drivers.spec import Array

SAMPLES = 208
GAP_SAMPLES = 792


def drives(rows: int, samples: int = SAMPLES, seed: int = 0) -> Array:
    return 10 * np.random.default_rng(seed).uniform(-1, 1, (rows, samples))


def keys(rows: int, stream: int = 3) -> list[RowKey]:
    return [RowKey(stream, i, 7.0 * i) for i in range(rows)]


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 3.0])
def test_vjp_equals_finite_differences(gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the DAC's steps, whose derivative is taken as the identity by definition
    monkeypatch.setattr(circuit, "GAP_1", replace(circuit.GAP_1, dac_step=0.0))
    plant = CircuitPlant(gap=gap)
    rng = np.random.default_rng(1)
    drive, g = drives(4, 60), rng.standard_normal((4, 60))
    times_s = np.array([0.0, 100.0, 444.0, 900.0])
    direction, step = rng.standard_normal(drive.shape), 1e-5
    high = plant.forward(drive + step * direction, times_s)
    low = plant.forward(drive - step * direction, times_s)
    expected = ((high - low) * g).sum(axis=1) / (2 * step)
    found = (plant.vjp(drive, times_s, g) * direction).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_tabulated_softplus_is_softplus() -> None:
    z = np.linspace(-40, 40, 5001)
    found = [circuit_kernels._softplus(float(x), circuit_kernels.SOFTPLUS) for x in z]
    np.testing.assert_allclose(found, np.logaddexp(0, z), atol=4e-10)


def test_at_gap_0_it_is_the_textbooks_equations() -> None:
    """Against a plain transcription of them, one step at a time."""
    u = drives(1, 100)[0] / 10

    def diodes(v: float) -> float:
        return float(
            1.2 * 0.2 * np.logaddexp(0, (v - 0.3) / 0.2) - 0.2 * np.logaddexp(0, (-v - 0.75) / 0.2)
        )

    i = v = 0.0
    expected = []
    for drive in u:
        for _ in range(4):
            i += 0.075 * (1.6 * drive - i / 15 - v)
            v += 0.075 * (i - diodes(v) + diodes(0.0))
        expected.append(v + 0.12 * np.logaddexp(0, 5 * (i - 0.5)))
    plant = CircuitPlant(gap=0.0)
    found = plant.forward(10 * u[None], np.zeros(1))[0] / RESPONSE_UNIT_V / plant._gain
    np.testing.assert_allclose(found + plant._offset, expected, atol=1e-8)


def test_noise_follows_from_the_row_key_alone() -> None:
    """Batched or one by one, in any order, with strangers in between: bit for bit."""
    plant, drive = CircuitPlant(seed=5), drives(6)
    together = plant.measure(drive, keys(6))
    for i in (4, 0, 5, 2):
        plant.measure(drive[:2], keys(2, stream=99))
        assert np.array_equal(plant.measure(drive[i : i + 1], [keys(6)[i]])[0], together[i])
    other = CircuitPlant(seed=6).measure(drive, keys(6))
    assert not np.array_equal(other, together)


def test_neighbouring_rows_and_streams_have_independent_noise() -> None:
    plant = CircuitPlant()
    draws = plant._noise.rows([RowKey(*key, 0.0) for key in [(1, 1), (1, 2), (2, 1)]], 1000)
    off_diagonal = np.corrcoef(draws)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 0.2  # six standard deviations of chance


def test_announced_keys_are_used_in_order_then_the_plants_own() -> None:
    plant, drive = CircuitPlant(), drives(5)
    for key in keys(3):
        plant.announce(key)
    first, second = plant.respond(drive[:2]), plant.respond(drive[2:])
    expected = plant.measure(drive[:3], keys(3))
    assert np.array_equal(np.concatenate([first, second[:1]]), expected)
    again = plant.respond(drive[3:])
    assert not np.array_equal(again, second[1:])  # its own rows are numbered on


def test_forgotten_keys_are_not_used() -> None:
    plant, drive = CircuitPlant(), drives(1)
    plant.announce(RowKey(9, 9, 9.0))
    plant.forget()
    plant.announce(keys(1)[0])
    assert np.array_equal(plant.respond(drive), plant.measure(drive, keys(1)))


def test_noise_is_as_large_as_the_table_says() -> None:
    plant, drive = CircuitPlant(), drives(300)
    clean = plant.forward(drive, np.zeros(300))
    rows = plant.measure(drive, [RowKey(1, i, 0.0) for i in range(300)])
    sd = float((rows - clean).std()) / RESPONSE_UNIT_V
    slope = float(np.gradient(clean, axis=1).std()) / RESPONSE_UNIT_V
    step_sd = 6 / 4096 / np.sqrt(12)
    expected = np.sqrt(0.01**2 + (0.005 * 0.5) ** 2 + (0.02 * slope) ** 2 + step_sd**2)
    assert sd == pytest.approx(expected, rel=0.05)


def test_noise_and_gap_zero_switch_everything_off() -> None:
    plant, drive = CircuitPlant(gap=0.0, noise=0.0), drives(3)
    clean = plant.forward(drive, np.zeros(3))
    np.testing.assert_array_equal(plant.forward(drive, np.full(3, 250.0)), clean)
    np.testing.assert_array_equal(plant.measure(drive, keys(3)), clean)
    one = CircuitPlant(gap=0.0, noise=0.0, device_seed=1)
    np.testing.assert_array_equal(one.forward(drive, np.zeros(3)), clean)


def test_devices_differ_by_seed_and_drift_with_time() -> None:
    drive = drives(20)
    first, second = (CircuitPlant(device_seed=s) for s in (0, 1))
    y = first.forward(drive, np.zeros(20))
    for other in (second.forward(drive, np.zeros(20)), first.forward(drive, np.full(20, 250.0))):
        assert np.std(other - y) / np.std(y) > 0.01


@pytest.mark.parametrize("gap", [0.0, 1.0, 2.0, 3.0])
def test_in_the_gap_the_previous_row_rings_down_below_the_noise(gap: float) -> None:
    """Against the same rows from rest, in the worst of 50 drives and at full swing on resonance."""
    plant = CircuitPlant(gap=gap)
    before, after = drives(51), drives(51, seed=1)
    before[50] = 10 * np.sign(np.sin(0.3 * np.arange(SAMPLES)))
    rest = np.zeros((51, GAP_SAMPLES))
    continuous = plant.forward(np.concatenate([before, rest, after], axis=1), np.zeros(51))
    left_over = continuous[:, -SAMPLES:] - plant.forward(after, np.zeros(51))
    assert np.abs(left_over).max() < NOISE_1.sample * RESPONSE_UNIT_V / 3


def test_the_circuit_rests_at_rest() -> None:
    plant = CircuitPlant(gap=1.0)
    y = plant.forward(np.zeros((1, 50)), np.zeros(1))
    np.testing.assert_allclose(y, y[0, 0], rtol=1e-12)


@pytest.mark.parametrize(("gap", "noise"), [(-0.1, 1), (3.1, 1), (1, -1), (float("nan"), 1)])
def test_impossible_dials_are_refused(gap: float, noise: float) -> None:
    with pytest.raises(ValueError, match="gap"):
        CircuitPlant(gap=gap, noise=noise)

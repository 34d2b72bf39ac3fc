"""The simulated optics: reproducible noise, a correct adjoint, the gap dial."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.mock.physics import optics_map
from drivers.mock.physics.optics import OpticalPlant
from drivers.row_key import RowKey
from drivers.spec import Array

WAVELENGTHS_M = np.linspace(773.365e-9, 776.635e-9, 101)[1::2]


def fields(rows: int, seed: int = 0) -> Array:
    return -0.5 + 1.5 * np.random.default_rng(seed).random((rows, 100))


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 3.0])
def test_vjp_equals_finite_differences(gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the DAC's steps, whose derivative is taken as the identity by definition
    monkeypatch.setattr(optics_map, "GAP_1", replace(optics_map.GAP_1, dac_step=0.0))
    plant = OpticalPlant(gap=gap)
    rng = np.random.default_rng(1)
    field, g = fields(4), rng.standard_normal((4, 50))
    times_s = np.array([0.0, 1e4, 5e4, 1.2e5])
    direction, step = rng.standard_normal(field.shape), 1e-6
    high = plant.forward(field + step * direction, times_s, WAVELENGTHS_M)
    low = plant.forward(field - step * direction, times_s, WAVELENGTHS_M)
    expected = ((high - low) * g).sum(axis=1) / (2 * step)
    found = (plant.vjp(field, times_s, WAVELENGTHS_M, g) * direction).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-13)


def test_noise_follows_from_the_row_key_alone() -> None:
    keys = [RowKey(3, i, 0.75 * i) for i in range(6)]
    field = fields(6)
    plant = OpticalPlant(seed=5)
    first = [plant.measure(f, k, WAVELENGTHS_M) for f, k in zip(field, keys, strict=True)]
    for i in (4, 0, 5, 2):  # another order, with strangers in between
        plant.measure(field[0], RowKey(99, i, 0.0), WAVELENGTHS_M)
        again = plant.measure(field[i], keys[i], WAVELENGTHS_M)
        assert np.array_equal(again, first[i])
    other = OpticalPlant(seed=6).measure(field[0], keys[0], WAVELENGTHS_M)
    assert not np.array_equal(other, first[0])


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
@settings(max_examples=50, deadline=None)  # a plant takes its time on a busy machine
def test_noise_is_that_of_a_new_philox_generator(seed: int, stream: int, index: int) -> None:
    plant = OpticalPlant(seed=seed)
    plant._noise.normal(RowKey(1, 2, 0.0), 7)  # leaves half a block of random numbers behind
    philox = np.random.Philox(
        key=np.array([seed, stream], dtype=np.uint64),
        counter=np.array([0, index, 1, 0], dtype=np.uint64),
    )
    expected = np.random.Generator(philox).standard_normal(102)
    assert np.array_equal(plant._noise.normal(RowKey(stream, index, 0.0), 102), expected)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 2))
@settings(max_examples=50, deadline=None)  # a plant takes its time on a busy machine
def test_neighbouring_rows_have_independent_noise(stream: int, index: int) -> None:
    plant = OpticalPlant()
    here = plant._noise.normal(RowKey(stream, index, 0.0), 1000)
    beside = plant._noise.normal(RowKey(stream, index + 1, 0.0), 1000)
    assert abs(np.corrcoef(here, beside)[0, 1]) < 0.2  # six standard deviations of chance


def test_rows_without_a_key_use_the_plants_own_counter() -> None:
    plant = OpticalPlant()
    assert not np.array_equal(plant.spectrum(WAVELENGTHS_M), plant.spectrum(WAVELENGTHS_M))


def test_total_noise_is_about_one_per_cent_beside_the_pulse_energy() -> None:
    plant = OpticalPlant(gap=1.0)
    field = fields(200)
    clean = plant.forward(field, np.zeros(200), WAVELENGTHS_M)
    rows = np.array(
        [plant.measure(f, RowKey(1, i, 0.0), WAVELENGTHS_M) for i, f in enumerate(field)]
    )
    rows *= (clean.mean(axis=1) / rows.mean(axis=1))[:, None]
    error = np.sqrt(np.mean((rows - clean) ** 2) / np.mean(clean**2))
    assert 0.008 < error < 0.02


def test_noise_and_gap_zero_switch_everything_off() -> None:
    plant = OpticalPlant(gap=0.0, noise=0.0)
    field = fields(3)
    clean = plant.forward(field, np.zeros(3), WAVELENGTHS_M)
    aged = plant.forward(field, np.full(3, 4e4), WAVELENGTHS_M)
    measured = plant.measure(field[1], RowKey(0, 1, 2e4), WAVELENGTHS_M)
    np.testing.assert_allclose(aged, clean, rtol=1e-12)
    np.testing.assert_allclose(measured, clean[1], rtol=1e-12)


def test_devices_differ_by_seed_and_drift_with_time() -> None:
    field = fields(1)
    one, two = (OpticalPlant(device_seed=s) for s in (0, 1))
    a = one.forward(field, np.zeros(1), WAVELENGTHS_M)
    assert not np.allclose(a, two.forward(field, np.zeros(1), WAVELENGTHS_M), rtol=1e-2)
    assert not np.allclose(a, one.forward(field, np.full(1, 2e4), WAVELENGTHS_M), rtol=1e-3)


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0])
def test_a_blocked_shaper_gives_darkness(gap: float) -> None:
    plant = OpticalPlant(gap=gap, noise=0.0)
    frequencies_thz = 192.915 + 0.001 * np.arange(1000)
    plant.set_transmission(frequencies_thz, np.zeros(1000, dtype=complex))
    assert plant.spectrum(WAVELENGTHS_M).max() == 0.0


def test_transmission_by_lines_equals_the_field_by_pixels() -> None:
    plant = OpticalPlant(gap=1.0, noise=0.0)
    field = fields(1)[0]
    frequencies_thz = 192.915 + 0.001 * np.arange(1000)
    lines = np.abs(field) * np.exp(1j * np.where(field < 0, np.pi, 0.0))
    plant.announce(RowKey(0, 0, 7.0))
    plant.set_transmission(frequencies_thz, np.repeat(lines, 10))
    by_lines = plant.spectrum(WAVELENGTHS_M)
    by_pixels = plant.measure(field, RowKey(0, 0, 7.0), WAVELENGTHS_M)
    # both end at the ADC, whose steps are 1.6 uW / 4095
    np.testing.assert_allclose(by_lines, by_pixels, atol=1.01 * 1.6e-6 / 4095)


@pytest.mark.parametrize(("gap", "noise"), [(-0.1, 1), (3.1, 1), (1, -1), (float("nan"), 1)])
def test_impossible_dials_are_refused(gap: float, noise: float) -> None:
    with pytest.raises(ValueError, match=r"gap|noise"):
        OpticalPlant(gap=gap, noise=noise)

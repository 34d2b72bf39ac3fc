"""Blazed gratings: what a Fourier transform finds in the first order is the commanded field."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.shapers.slm_grating import Grating, levels_of, order_amplitude

PERIODS = {period: Grating(period) for period in (3, 4, 5, 8, 12, 64)}
TABLE_ERROR = 1e-8


def fields(size: int = 6):
    """Return a strategy of (amplitudes, phases), (size,) each."""
    amplitude = st.lists(st.floats(0, 1), min_size=size, max_size=size)
    phase = st.lists(st.floats(-7, 7), min_size=size, max_size=size)
    return st.tuples(amplitude.map(np.array), phase.map(np.array))


@given(period=st.sampled_from(list(PERIODS)), field=fields(), repeats=st.integers(1, 5))
def test_the_first_order_is_the_commanded_field(period, field, repeats):
    amplitude, phase_rad = field
    shown = np.tile(PERIODS[period].phases(amplitude, phase_rad), (repeats, 1))
    orders = np.fft.fft(np.exp(1j * shown), axis=0) / len(shown)
    commanded = amplitude * np.exp(1j * phase_rad)
    np.testing.assert_allclose(orders[repeats], commanded, rtol=0, atol=TABLE_ERROR)
    between = np.arange(len(shown)) % repeats != 0
    np.testing.assert_allclose(orders[between], 0, atol=1e-12)  # light goes into orders only


@given(period=st.sampled_from(list(PERIODS)), field=fields(), bits=st.sampled_from([8, 10]))
def test_grey_levels_miss_it_by_half_a_level_at_most(period, field, bits):
    amplitude, phase_rad = field
    turn = 2**bits
    levels = levels_of(PERIODS[period].phases(amplitude, phase_rad), turn, bits)
    assert levels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert levels.max() < turn
    shown = np.exp(-2j * np.pi * levels.astype(float) / turn)  # a higher level is less phase
    first = np.fft.fft(shown, axis=0)[1] / period
    commanded = amplitude * np.exp(1j * phase_rad)
    assert np.abs(first - commanded).max() <= np.pi / turn + TABLE_ERROR


@pytest.mark.parametrize("period", PERIODS)
def test_the_amplitude_rises_with_the_depth_from_nothing_to_all(period):
    amplitude = order_amplitude(np.linspace(0, 1, 1001), period)
    assert (amplitude[0], amplitude[-1]) == (0.0, 1.0)
    assert (np.diff(amplitude) > 0).all()


def test_for_many_rows_it_is_the_papers_sinc():
    depth = np.linspace(0, 1, 101)
    np.testing.assert_allclose(order_amplitude(depth, 100_000), np.sinc(1 - depth), atol=1e-9)


def test_a_field_of_zero_is_flat_and_a_full_one_a_blaze_of_one_turn():
    phases = PERIODS[8].phases(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert (phases[:, 0] == 0).all()
    steps = np.diff(np.append(phases[:, 1], phases[0, 1]))
    np.testing.assert_allclose(np.mod(steps, 2 * np.pi), np.pi / 4)


def test_phases_shift_the_grating():
    """A quarter of a turn is a shift by a quarter of the period."""
    amplitude = np.array([0.6, 0.6])
    phases = PERIODS[8].phases(amplitude, np.array([0.0, np.pi / 2]))
    np.testing.assert_allclose(phases[:, 1], np.roll(phases[:, 0], -2), atol=1e-12)


def test_levels_are_these():
    phases = np.array([0.0, np.pi / 2, -np.pi / 2, 2 * np.pi, 0.6 * 2 * np.pi / 256])
    assert levels_of(phases, 256, 8).tolist() == [0, 192, 64, 0, 255]
    assert levels_of(phases, 200, 8).tolist() == [0, 150, 50, 0, 0]

"""The declared drift of the simulated optics: linear, deterministic, in forward and adjoint."""

from dataclasses import replace

import numpy as np
import pytest

from drivers.mock.physics import optics_drift, optics_map
from drivers.mock.physics.optics import OpticalPlant
from drivers.mock.physics.optics_drift import DeclaredDrift
from drivers.mock.physics.optics_table import DriftRanges
from drivers.row_key import RowKey
from drivers.spec import Array
from drivers.transport import open_rigs
from lab.bench_config import RigConfig

WAVELENGTHS_M = np.linspace(773.365e-9, 776.635e-9, 101)[1::2]
HOUR_S = 3600.0


def fields(rows: int, seed: int = 0) -> Array:
    return -0.5 + 1.5 * np.random.default_rng(seed).random((rows, 100))


def at(hours: float, rows: int = 1) -> Array:
    return np.full(rows, hours * HOUR_S)


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0])
def test_vjp_follows_the_drift(gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the DAC's steps, whose derivative is taken as the identity by definition
    monkeypatch.setattr(optics_map, "GAP_1", replace(optics_map.GAP_1, dac_step=0.0))
    plant = OpticalPlant(gap=gap, drift=DeclaredDrift(0.05, 2 * HOUR_S))
    rng = np.random.default_rng(1)
    field, g = fields(4), rng.standard_normal((4, 50))
    times_s = np.array([0.0, 3.0, 10.0, 21.0]) * HOUR_S  # before the drift, and far into it
    direction, step = rng.standard_normal(field.shape), 1e-6
    high = plant.forward(field + step * direction, times_s, WAVELENGTHS_M)
    low = plant.forward(field - step * direction, times_s, WAVELENGTHS_M)
    expected = ((high - low) * g).sum(axis=1) / (2 * step)
    found = (plant.vjp(field, times_s, WAVELENGTHS_M, g) * direction).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-13)


def test_without_drift_nothing_changes_bit_for_bit() -> None:
    field, key = fields(1), RowKey(1, 2, 5 * HOUR_S)
    plain, declared = OpticalPlant(), OpticalPlant(drift=DeclaredDrift(0.0, 0.0))
    assert np.array_equal(
        plain.measure(field[0], key, WAVELENGTHS_M), declared.measure(field[0], key, WAVELENGTHS_M)
    )
    g = np.ones((1, 50))
    assert np.array_equal(
        plain.vjp(field, at(5), WAVELENGTHS_M, g), declared.vjp(field, at(5), WAVELENGTHS_M, g)
    )


def test_nothing_has_drifted_until_the_stated_time() -> None:
    plain, later = OpticalPlant(), OpticalPlant(drift=DeclaredDrift(0.05, 4 * HOUR_S))
    field = fields(2)
    before, after = at(4, 2), at(5, 2)
    np.testing.assert_allclose(
        later.forward(field, before, WAVELENGTHS_M),
        plain.forward(field, before, WAVELENGTHS_M),
        rtol=1e-12,
    )
    assert not np.allclose(
        later.forward(field, after, WAVELENGTHS_M),
        plain.forward(field, after, WAVELENGTHS_M),
        rtol=1e-2,
    )


def test_the_drift_goes_on_evenly() -> None:
    drift = DeclaredDrift(0.05, HOUR_S)
    np.testing.assert_allclose(
        drift.share(np.array([0.0, 1.0, 2.0, 9.0]) * HOUR_S), [0, 0, 0.05, 0.4], rtol=1e-12
    )


def drift_only(monkeypatch: pytest.MonkeyPatch, **ranges: float) -> None:
    """Leave no range to drift through but those given."""
    none = {"energy": 0.0, "axis_m": 0.0, "chirp_rad": 0.0}
    monkeypatch.setattr(optics_drift, "DRIFT_RANGES", DriftRanges(**{**none, **ranges}))


def test_the_light_fades_with_the_square_of_the_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    drift_only(monkeypatch, energy=1.0)
    plant = OpticalPlant(gap=0.0, drift=DeclaredDrift(0.1))
    faint = 0.1 * fields(3)  # no depletion or saturation to speak of
    ratio = plant.forward(faint, at(2, 3), WAVELENGTHS_M) / plant.forward(
        faint, at(0, 3), WAVELENGTHS_M
    )
    np.testing.assert_allclose(ratio, 0.8**2, rtol=1e-3)


def test_the_axis_moves_by_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    drift_only(monkeypatch, axis_m=65.4e-12)
    plant = OpticalPlant(gap=1.0, drift=DeclaredDrift(0.5))
    plain = OpticalPlant(gap=1.0)
    moved = plant.forward(fields(3), at(1, 3), WAVELENGTHS_M)
    expected = plain.forward(fields(3), at(1, 3), WAVELENGTHS_M + 32.7e-12)
    # the shift is taken at the band's centre: 0.4 % less or more at its ends
    np.testing.assert_allclose(moved, expected, atol=2e-3 * expected.max())


def test_chirp_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    drift_only(monkeypatch, chirp_rad=2.0)
    plant = OpticalPlant(gap=0.0, drift=DeclaredDrift(0.25))
    z = (np.arange(100) - 49.5) / 50
    chirped = fields(2) * np.exp(1j * 0.5 * z**2)
    by_shaper = OpticalPlant(gap=0.0, noise=0.0).measure(
        chirped[0], RowKey(0, 0, HOUR_S), WAVELENGTHS_M
    )
    drifted = plant.forward(fields(2), at(1, 2), WAVELENGTHS_M)[0]
    np.testing.assert_allclose(drifted, by_shaper, rtol=1e-9)


def test_a_row_after_the_last_light_is_refused() -> None:
    plant = OpticalPlant(drift=DeclaredDrift(0.05, HOUR_S))
    plant.forward(fields(1), at(20.9), WAVELENGTHS_M)
    with pytest.raises(ValueError, match=r"75600 s of simulated time.*light until 75600 s"):
        plant.forward(fields(1), at(21), WAVELENGTHS_M)


@pytest.mark.parametrize(("per_hour", "from_s"), [(-0.1, 0), (float("nan"), 0), (0.1, -1)])
def test_impossible_drifts_are_refused(per_hour: float, from_s: float) -> None:
    with pytest.raises(ValueError, match="drift"):
        DeclaredDrift(per_hour, from_s)


def test_the_bench_file_declares_it() -> None:
    rig = RigConfig(drift_per_hour=0.05, drift_from_s=10.0, noise=0.0)
    plant = open_rigs({"optics": rig})["optics"].plant
    assert isinstance(plant, OpticalPlant)
    same = OpticalPlant(noise=0.0, drift=DeclaredDrift(0.05, 10.0))
    key = RowKey(0, 0, HOUR_S)
    assert np.array_equal(
        plant.measure(fields(1)[0], key, WAVELENGTHS_M),
        same.measure(fields(1)[0], key, WAVELENGTHS_M),
    )


@pytest.mark.parametrize("plant", ["circuit", "plate"])
def test_other_plants_refuse_a_declared_drift(plant: str) -> None:
    with pytest.raises(ValueError, match=rf"rigs.r.drift_per_hour: 0.05 .*'{plant}'"):
        open_rigs({"r": RigConfig(plant=plant, drift_per_hour=0.05)})

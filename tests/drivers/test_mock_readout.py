"""Readings of several rows at once: their keys, and what goes wrong with them."""

from collections.abc import Callable

import numpy as np
import pytest

from drivers.mock.faults import FaultOrder, PlantFault
from drivers.mock.readout import Readout
from drivers.mock.rig import circuit_rig, plate_rig
from drivers.row_key import row_keys

DRIVE = np.linspace(-1, 1, 12).reshape(3, 4)
KEYS = row_keys(1, 5, 5, 0.75)


@pytest.fixture
def readout(echo) -> Readout:
    return Readout(echo, 2.0)


@pytest.fixture
def read(readout, echo) -> Callable[[np.ndarray], np.ndarray]:
    return readout.watched(echo.play, len)


def test_each_row_takes_the_next_key(readout, read, echo):
    readout.announce_rows(KEYS)
    assert echo.keys == []  # it is told when it is read
    read(DRIVE)
    assert echo.keys == KEYS[:3]
    read(DRIVE[:1])
    assert echo.keys == KEYS[:4]
    readout.announce_rows(KEYS[:1])  # what was left is forgotten
    read(DRIVE)
    assert echo.keys == [*KEYS[:4], KEYS[0]]


@pytest.mark.parametrize(
    ("fault", "how", "expected"),
    [
        (PlantFault.SATURATION, {}, np.full((3, 4), 2.0)),
        (PlantFault.DEAD_PIXEL, {"pixel": 3}, DRIVE / 2 * [1, 1, 1, 0]),
        (PlantFault.DEAD_PIXEL, {"pixel": 4}, DRIVE / 2),
        (PlantFault.DRIFT_BURST, {"burst": 0.5}, DRIVE / 4),
        (PlantFault.STUCK, {}, DRIVE / 2),  # nothing was read before
    ],
)
def test_every_row_of_a_reading_is_struck(readout, read, fault, how, expected):
    readout.faults.arm(FaultOrder("any", fault, **how))
    np.testing.assert_array_equal(read(DRIVE), expected)
    np.testing.assert_array_equal(read(DRIVE), DRIVE / 2)


def test_a_stuck_reading_is_the_last_one_of_as_many_rows(readout, read):
    first = read(DRIVE)
    readout.faults.arm(FaultOrder("any", PlantFault.STUCK, times=3))
    np.testing.assert_array_equal(read(-DRIVE), first)
    np.testing.assert_array_equal(read(-DRIVE), first)
    np.testing.assert_array_equal(read(DRIVE[:1]), DRIVE[:1] / 2)


@pytest.mark.parametrize(("make", "name"), [(circuit_rig, "daq"), (plate_rig, "audio")])
def test_boards_and_sound_interfaces_have_what_their_plant_can_have(make, name, plant, echo):
    rig = make(plant if name == "daq" else echo)
    assert rig.hears_ahead
    rig.inject(name, PlantFault.SATURATION)
    rig.clear_faults()

"""The plate on a board instead of a sound interface: volts, limits, and the same rows."""

import numpy as np
import pytest

from drivers.errors import LimitError
from drivers.mock.firmware.mcc import MccFirmware
from drivers.mock.firmware.plate_daq import INPUT_STEP_V, OUTPUT_STEP_V
from drivers.mock.physics.plate import OscillatingPlate
from drivers.mock.physics.plate_table import GAP_1
from drivers.mock.rig import plate_rig
from drivers.plates.audio import AudioPlate
from drivers.plates.daq_plate import open_daq_plate
from drivers.row_key import RowKey
from drivers.transport import open_audio, open_board
from lab.bench import open_bench
from lab.bench_config import load_bench

ROWS = 5


@pytest.fixture
def board_plant(plant):
    """Return a board that answers each voltage v with v / 2 + 1."""
    return MccFirmware(plant)


def representable(rows=ROWS, seed=0):
    """Return drives that the board's 12 bits of +-10 V have at 1 V full scale."""
    drive = np.random.default_rng(seed).uniform(-0.99, 0.99, (rows, 196))
    return np.rint(drive / OUTPUT_STEP_V) * OUTPUT_STEP_V


def test_full_scale_stands_for_volts_in_both_directions(plant, board_plant):
    settings = {"samples": 4, "gap_samples": 6, "buffer_samples": 30}
    volts = {"drive_full_scale_v": 5.0, "response_full_scale_v": 2.0}
    drive = np.array([[0.0, 0.5, -1.0, 1.0], [0.2, 0.2, 0.2, 0.2]])
    with open_daq_plate(board_plant.connect(), **settings, **volts) as plate:
        recording = plate.play_and_record(drive)
        assert (plate.rows_per_shot, plate.silence_samples) == (3, 6)
    np.testing.assert_allclose(plant.drives[0], 5.0 * drive)
    np.testing.assert_allclose(recording.response, (2.5 * drive + 1) / 2)
    assert recording.in_sync.tolist() == [True, True]


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_the_same_rows_through_sound_interface_and_board_agree(gap):
    """To half a step of the board's input; the plate's own 12 bits may fall either way."""
    plant = OscillatingPlate(gap=gap, seed=3)
    rigs = {"plate": plate_rig(plant)}
    drive, keys = representable(), [RowKey(7, i, 0.1 * i) for i in range(ROWS)]
    heard = []
    for plate in (
        AudioPlate(open_audio("mock://plate/audio", rigs, timeout_s=2)),
        open_daq_plate(open_board("mock://plate/daq", rigs)),
    ):
        with plate:
            plate.start()
            for key in keys:
                plant.announce(key)
            heard.append(plate.play_and_record(drive).response)
    audio, daq = heard
    assert np.abs(audio).max() > 0.3
    assert np.abs(daq - audio).max() <= INPUT_STEP_V / 2 + gap * GAP_1.adc_step + 1e-6


def test_a_drive_between_two_steps_is_played_as_the_nearer():
    rig = plate_rig(OscillatingPlate(gap=0.0, noise=0.0))
    with open_daq_plate(open_board("mock://plate/daq", {"plate": rig})) as plate:
        exact = plate.play_and_record(representable()).response
        near = plate.play_and_record(representable() + 0.4 * OUTPUT_STEP_V).response
    assert np.array_equal(exact, near)


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((1, 196), 1.001),
        np.full((1, 196), np.nan),
        np.zeros((1, 195)),
        np.zeros(196),
        np.zeros((101, 196)),
        np.zeros((0, 196)),
    ],
)
def test_what_is_out_of_limits_is_refused_before_anything_is_played(plant, board_plant, wrong):
    plate = open_daq_plate(board_plant.connect(), name="plate-on-board")
    with pytest.raises(LimitError, match="plate-on-board: drive: "):
        plate.play_and_record(wrong)
    assert not plant.drives


def test_the_bench_may_narrow_the_drive_in_both_drivers(board_plant):
    plate = open_daq_plate(board_plant.connect(), drive_full_scale_v=2.0, drive=(-0.5, 0.5))
    with pytest.raises(LimitError, match=r"0\.6 .* outside \[-0\.5, 0\.5\] full scale"):
        plate.play_and_record(np.full((1, 196), 0.6))
    with pytest.raises(LimitError, match=r"outside \[-1, 1\] V"):
        plate._daq.acquire(np.full((1, 196), 1.2))
    for wider in ((-2.0, 0.5), (-1.0, 1.1)):
        with pytest.raises(ValueError, match="wider"):
            open_daq_plate(board_plant.connect(), drive=wider)


@pytest.mark.parametrize("volts", [0.0, -1.0, 10.1, np.nan])
@pytest.mark.parametrize("quantity", ["drive_full_scale_v", "response_full_scale_v"])
def test_volts_beyond_the_boards_are_refused(board_plant, quantity, volts):
    with pytest.raises(LimitError, match=rf"{quantity}: .* V is outside \(0, 10\] V"):
        open_daq_plate(board_plant.connect(), **{quantity: volts})


def test_a_plate_system_runs_on_either_by_its_bench_file_alone():
    bench = load_bench("bench-plate.toml")
    part = {"driver": "DaqPlate", "address": "mock://plate/daq", "expect_idn": "USB-1208HS"}
    sound = bench.instruments["sound"].model_copy(update={**part, "settings": {}})
    x = representable() / 2
    y = []
    for config in (bench, bench.model_copy(update={"instruments": {"sound": sound}})):
        with open_bench(config) as opened:
            rows = opened.system("plate").transform(x, x, [RowKey(1, i, 0.0) for i in range(ROWS)])
            y.append(rows.y)
            assert not rows.out_of_sync.any()
    assert np.abs(y[1] - y[0]).max() <= INPUT_STEP_V / 2 + GAP_1.adc_step + 1e-6

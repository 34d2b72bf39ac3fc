"""The limits of each driver: what it declares, what a bench narrows, what reaches the far end."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drivers.circuits.mcc import MccUsb1208HS
from drivers.errors import LimitError
from drivers.mock.firmware.bounds import Bounds
from drivers.plates.audio import AudioPlate
from drivers.shapers.waveshaper import WaveShaperA


def test_each_declares_its_hardwares_limits(make_shaper, make_daq, make_audio):
    shaper, daq, audio = make_shaper(), make_daq(), make_audio()
    assert (shaper.attenuation.low, shaper.attenuation.high) == WaveShaperA.ATTENUATION_DB
    assert (shaper.phase.low, shaper.phase.high) == WaveShaperA.PHASE_RAD
    assert daq.drive.high == -daq.drive.low == MccUsb1208HS.FULL_SCALE_V
    assert audio.drive.high == -audio.drive.low == AudioPlate.FULL_SCALE
    of_rows = {
        d.name: [(limit.name, limit.greatest, limit.unit) for limit in d.row_limits]
        for d in (shaper.attenuation, daq.drive)
    }
    assert of_rows == {
        "attenuation": [("transmission", 1.0, "")],
        "drive": [("slew", 20.0, "V/sample")],
    }
    assert [limit.name for limit in audio.drive.row_limits] == ["rms", "slew", "duty"]
    for spec in (shaper.attenuation, shaper.phase, daq.drive, audio.drive):
        assert not spec.limits_rows


def test_limits_cannot_be_exchanged(make_shaper, make_daq, make_audio):
    wide = make_daq().drive
    for driver, name in (
        (make_shaper(), "attenuation"),
        (make_shaper(), "phase"),
        (make_daq(), "drive"),
        (make_audio(), "drive"),
    ):
        with pytest.raises(AttributeError):
            setattr(driver, name, wide)
        with pytest.raises(AttributeError):
            getattr(driver, name).high = 1e9


@pytest.mark.parametrize(
    ("limits", "bad", "message"),
    [
        ({"peak": 0.5}, 0.6, r"0.6 full scale at index \[1, 0\] is outside \[-0.5, 0.5\]"),
        ({"rms": 0.3}, 0.31, r"rms 0.31 full scale of row 1 is above the limit of 0.3 full scale"),
        ({"slew": 0.3}, 0.31, r"slew 0.31 full scale/sample of row 1 is above the limit of 0.3"),
        ({"duty": 0.04}, 0.01, r"duty 0.0408333 of row 1 is above the limit of 0.04$"),
    ],
)
def test_a_speakers_limits(make_audio, plate_rig_of_echo, limits, bad, message):
    port = plate_rig_of_echo.instruments["audio"]
    with make_audio(drive=limits) as audio:
        audio.start()
        shots = port.exchanges
        drive = np.zeros((2, 196))
        audio.play_and_record(drive)
        drive[1] = bad
        with pytest.raises(LimitError, match=f"audio: drive: {message}"):
            audio.play_and_record(drive)
        assert port.exchanges == shots + 1


def test_a_speakers_silence_is_within_its_limits(make_audio):
    with pytest.raises(ValueError, match="leaves out 0, the silence between rows"):
        make_audio(drive=(0.1, 0.5))


def test_a_limit_that_single_precision_cannot_hold_is_kept(make_audio, plate_rig_of_echo, echo):
    port = plate_rig_of_echo.instruments["audio"]
    port.bounds = Bounds(-0.3, 0.3)
    assert float(np.float32(0.3)) > 0.3
    with make_audio(drive=(-0.3, 0.3)) as audio:
        audio.start()
        audio.play_and_record(np.full((1, 196), 0.3))
    assert echo.played[-1].max() == np.nextafter(np.float32(0.3), np.float32(0))
    assert port.out_of_limits == 0


def test_a_circuits_slew(make_daq, rig):
    board = rig.instruments["daq"]
    with make_daq(drive={"peak": 5.0, "slew": 2.0}) as daq:
        daq.start()
        played = board.waveforms
        daq.acquire(np.array([[2.0, 4.0, 5.0, 5.0, 4.0, 3.0, 2.0, 1.0]]))
        for steep in ([3.0, *[2.0] * 7], [*[2.0] * 7, 3.0], [0, 0, 1.5, -1.0, 0, 0, 0, 0]):
            with pytest.raises(LimitError, match=r"slew .* V/sample of row 1 is above"):
                daq.acquire(np.array([[0.0] * 8, steep]))
        assert board.waveforms == played + 1


def test_rows_that_change_while_others_are_played_were_copied_before(make_daq, rig, plant):
    daq, board = make_daq(), rig.instruments["daq"]
    daq.start()
    drive = np.full((9, 8), 1.0)  # three waveforms

    def respond(played):
        drive[:] = 99.0  # the caller's, while the first waveform is out
        return played

    plant.respond = respond
    assert daq.acquire(drive).max() == 1.0
    assert board.out_of_limits == 0


def test_a_converters_step_beyond_a_limit_is_not_taken(make_redpitaya, rig, plant):
    firmware = rig.instruments["redpitaya"]
    firmware.bounds = Bounds(-3.0, 2.5)  # 2457.6 and 2048 steps, behind an amplifier of 10
    with make_redpitaya(drive={"low": -3.0, "high": 2.5, "slew": 4.0}) as daq:
        daq.start()
        daq.acquire(np.linspace(-3.0, 2.5, 208)[None])
        for beyond in (np.nextafter(-3.0, -4.0), 2.5001):
            with pytest.raises(LimitError, match=r"is outside \[-3, 2.5\] V"):
                daq.acquire(np.full((1, 208), beyond))
        with pytest.raises(LimitError, match=r"slew 5.5 V/sample of row 0 is above"):
            daq.acquire(np.array([[-3.0, 2.5, *[0.0] * 206]]))
    assert plant.drives[-1].min() == -10 * 2457 / 8192
    assert plant.drives[-1].max() == 2.5
    assert firmware.out_of_limits == 0


def test_a_shapers_floor_and_light(make_shaper, rig):
    firmware = rig.instruments["shaper"]
    firmware.attenuation_db, firmware.transmission = Bounds(3.0, 60.0), 0.25
    with make_shaper(attenuation={"low": 3.0, "transmission": 0.25}) as shaper:
        shaper.start()
        phase = np.zeros(20)
        half_dark = np.where(np.arange(20) % 2, 60.0, 3.1)
        shaper.load(half_dark, phase)
        with pytest.raises(LimitError, match=r"attenuation: 2.9 dB at index \[4\] is outside \[3,"):
            shaper.load(np.where(np.arange(20) == 4, 2.9, half_dark), phase)
        with pytest.raises(
            LimitError,
            match=r"shaper: attenuation: transmission 0.48\d* is above the limit of 0.25$",
        ):
            shaper.load(np.full(20, 3.1), phase)
    assert (firmware.profiles_loaded, firmware.out_of_limits) == (1, 0)


def test_no_digit_on_the_wire_is_beyond_a_limit(make_shaper, rig, monkeypatch):
    shaper = make_shaper(attenuation=(1.00005, 30.00004))
    sent = []
    firmware = rig.instruments["shaper"]

    def keep(body):
        sent.append(body)
        return firmware._json(0, "")

    monkeypatch.setattr(firmware, "_load", keep)

    anywhere = st.floats(1.0, 1.0002) | st.floats(29.9999, 30.0001)
    # of the ones above hardly any profile has all of its values within the limits
    within = st.floats(1.00011, 1.0002) | st.floats(29.9999, 29.99999)

    @given(arrays(np.float64, 20, elements=anywhere) | arrays(np.float64, 20, elements=within))
    def load(values):
        try:
            shaper.load(values, np.zeros(20))
        except LimitError:
            return
        written = re.findall(rb"\\t([\d.]+)\\t[-\d.]+\\t1", sent[-1])
        assert len(written) == 20
        assert all(1.00005 <= float(attenuation) <= 30.00004 for attenuation in written)

    load()
    assert len(sent) > 1


def test_a_whole_turn_of_phase_is_written_within_its_limit(make_shaper, rig):
    with make_shaper() as shaper:
        shaper.start()
        shaper.load(np.zeros(20), np.linspace(-2 * np.pi, 2 * np.pi, 20))
    assert rig.instruments["shaper"].out_of_limits == 0


@pytest.mark.parametrize("values", [[10.1], [-11.0, np.nan], [np.inf]])
def test_the_board_counts_what_it_should_not_get(rig, values):
    board = rig.instruments["daq"]
    played = np.zeros((16, 2))
    played[: len(values), 0] = values
    board.play(played, 1e6)
    assert board.out_of_limits == len(values)
    board.bounds = Bounds(-1.0, 1.0)
    played[:, 0], played[:, 1] = 1.5, 5.0
    board.play(played, 1e6)
    assert board.out_of_limits == len(values) + 16


def test_the_interface_counts_what_it_should_not_get(plate_rig_of_echo):
    port = plate_rig_of_echo.instruments["audio"]
    port.start()
    frames = np.zeros((10_000, 2), dtype=np.float32)
    frames[100:104] = [[1.5, 0.5], [np.nan, 0.5], [0.5, -2.0], [1.0, 1.0]]
    port.exchange(frames)
    assert port.out_of_limits == 3

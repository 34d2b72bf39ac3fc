"""The speaker and the microphone: what goes out, what comes back, and when."""

import numpy as np
import pytest

from drivers.errors import (
    ConnectionLost,
    IdentityError,
    InstrumentRefused,
    InstrumentTimeout,
    LimitError,
    ProtocolError,
)
from drivers.mock.faults import Fault
from drivers.mock.firmware.audio import LATENCY_FRAMES, AudioFault
from drivers.mock.physics.plate import OscillatingPlate
from drivers.mock.physics.plate_table import NOISE_1, REST_SAMPLES
from drivers.mock.rig import plate_rig
from drivers.plates.alignment import make_reference
from drivers.plates.audio import AudioPlate
from drivers.plates.audio_port import PortLost, Shot
from drivers.row_key import RowKey

FLOAT32 = 1e-7


class ListedPort:
    """Note every call; answer with the outputs, `lag` frames later."""

    def __init__(self, lag=7):
        self.calls = []
        self.lag = lag
        self.wired = True
        self.flags = []

    def describe(self):
        self.calls.append("describe")
        return "a port"

    def start(self):
        self.calls.append("start")

    def exchange(self, frames):
        self.calls.append(frames.copy())
        heard = np.zeros_like(frames)
        heard[self.lag :] = frames[: len(frames) - self.lag]
        heard[:, 1] *= self.wired
        return Shot(heard, self.flags.pop(0) if self.flags else ())

    def stop(self):
        self.calls.append("stop")

    def close(self):
        self.calls.append("close")


def drives(rows, samples=196, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (rows, samples))


def test_the_calls_and_the_waveform_frame_by_frame():
    port = ListedPort()
    small = {"samples": 20, "row_frames": 50, "rows_per_shot": 3, "longest_latency_frames": 30}
    drive = drives(2, 20)
    with AudioPlate(port, **small) as plate:
        plate.start()
        recording = plate.play_and_record(drive)
    described, started, silent, waveform, *end = port.calls
    assert (described, started, end) == ("describe", "start", ["stop", "close"])
    expected = np.zeros((2, 50, 2), dtype=np.float32)
    expected[:, :20, 1] = make_reference(20)
    assert np.array_equal(silent, expected[0])
    expected[:, :20, 0] = drive
    assert np.array_equal(waveform, expected.reshape(100, 2))
    assert waveform.dtype == np.float32
    assert np.array_equal(recording.response, drive.astype(np.float32))
    assert recording.in_sync.tolist() == [True, True]


def test_rows_come_back_in_order_whatever_the_latency(audio, echo):
    audio.start()
    lags = set()
    for seed in range(12):
        drive = drives(10, seed=seed)
        recording = audio.play_and_record(drive)
        np.testing.assert_allclose(recording.response, drive / 2, atol=FLOAT32)
        assert recording.in_sync.all()
        lags.add(audio._aligner.lag - LATENCY_FRAMES)
    assert lags == {0, 1, 2, 3}  # the interface's jitter


def test_the_silence_between_rows_is_as_long_as_a_row_of_the_plate_needs(audio, echo):
    audio.start()
    audio.play_and_record(drives(10))
    assert echo.played[-1].shape == (10, 196)  # ten stretches that each start from rest
    assert REST_SAMPLES < 4800 - 196


def test_a_shorter_silence_lets_a_row_ring_into_the_next(echo):
    """The plant does not know of rows: without rest they are one."""

    def second_row(first, **settings):
        plant = OscillatingPlate(gap=0.0, noise=0.0)
        port = plate_rig(plant).instruments["audio"]
        with AudioPlate(port, **settings) as plate:
            plate.start()
            return plate.play_and_record(np.concatenate((first, drives(1)))).response[1]

    loud, silent = np.sign(drives(1, seed=2)), np.zeros((1, 196))
    rested = second_row(loud) - second_row(silent)
    assert np.abs(rested).max() == 0.0
    hurried = {"row_frames": 596, "longest_latency_frames": 400}
    ringing = second_row(loud, **hurried) - second_row(silent, **hurried)
    assert np.abs(ringing).max() > NOISE_1.room / 10


def test_a_shot_that_ran_under_or_over_is_repeated(audio, echo, plate_rig_of_echo):
    audio.start()
    port = plate_rig_of_echo.instruments["audio"]
    port.inject(AudioFault.UNDERFLOW)
    port.inject(AudioFault.OVERFLOW)
    before = port.exchanges
    recording = audio.play_and_record(drives(2))
    assert port.exchanges == before + 3
    np.testing.assert_allclose(recording.response, drives(2) / 2, atol=FLOAT32)
    assert recording.in_sync.all()


def test_a_repeated_shot_keeps_its_row_keys():
    plant = OscillatingPlate(seed=1)
    rig = plate_rig(plant)
    keys = [RowKey(5, i, 0.1 * i) for i in range(3)]
    found = []
    for faults in ([], [AudioFault.UNDERFLOW]):
        with AudioPlate(rig.instruments["audio"]) as plate:
            plate.start()
            for key in keys:
                rig.announce(key)
            for fault in faults:
                rig.instruments["audio"].inject(fault)
            found.append(plate.play_and_record(drives(3)).response)
    assert np.array_equal(*found)


def test_an_interface_that_always_runs_under_is_given_up(audio, plate_rig_of_echo):
    audio.start()
    for _ in range(3):
        plate_rig_of_echo.instruments["audio"].inject(AudioFault.UNDERFLOW)
    with pytest.raises(InstrumentRefused, match="audio: output underflow in 3 shots"):
        audio.play_and_record(drives(2))
    assert audio.play_and_record(drives(2)).in_sync.all()


def test_a_lost_frame_spoils_its_row_and_no_other(audio, plate_rig_of_echo):
    audio.start()
    plate_rig_of_echo.instruments["audio"].inject(AudioFault.SLIP)
    recording = audio.play_and_record(drives(10))
    assert np.flatnonzero(~recording.in_sync).tolist() == [5]
    others = np.arange(10) != 5
    np.testing.assert_allclose(recording.response[others], drives(10)[others] / 2, atol=FLOAT32)
    assert audio.play_and_record(drives(10)).in_sync.all()


@pytest.mark.parametrize("ppm", [400.0, -400.0])
def test_rows_follow_two_clocks_that_run_apart(audio, plate_rig_of_echo, ppm):
    audio.start()
    plate_rig_of_echo.instruments["audio"].clock_ppm = ppm
    recording = audio.play_and_record(drives(10))
    # 19 frames in the end: ten times the window in which a row is first looked for
    assert recording.in_sync.sum() >= 8
    error = np.abs(recording.response - drives(10) / 2).max(axis=1)
    assert error[recording.in_sync].max() < FLOAT32


def test_a_missing_cable_is_told(audio):
    port = ListedPort()
    port.wired = False
    with pytest.raises(ProtocolError, match=r"plate: .*output 2 wired to input 2"):
        AudioPlate(port).start()


def test_noise_instead_of_an_answer_is_told(audio, plate_rig_of_echo):
    audio.start()
    plate_rig_of_echo.inject("audio", Fault.GARBAGE, on="exchange")
    with pytest.raises(ProtocolError, match="reference is not heard"):
        audio.play_and_record(drives(10))
    assert audio.play_and_record(drives(10)).in_sync.all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((1, 196), 1.001),
        np.full((1, 196), np.nan),
        np.zeros((1, 195)),
        np.zeros(196),
        np.zeros((11, 196)),
        np.zeros((0, 196)),
    ],
)
def test_what_is_out_of_limits_is_refused_before_anything_is_played(
    audio, plate_rig_of_echo, wrong
):
    audio.start()
    before = plate_rig_of_echo.instruments["audio"].exchanges
    with pytest.raises(LimitError, match="audio: drive: "):
        audio.play_and_record(wrong)
    assert plate_rig_of_echo.instruments["audio"].exchanges == before


def test_the_bench_may_narrow_the_drive(make_audio):
    quiet = make_audio(drive=(-0.5, 0.5))
    quiet.start()
    with pytest.raises(LimitError, match=r"0\.6 .* outside \[-0\.5, 0\.5\] full scale"):
        quiet.play_and_record(np.full((1, 196), 0.6))
    with pytest.raises(ValueError, match="wider"):
        make_audio(drive=(-2.0, 0.5))


@pytest.mark.parametrize(
    "settings",
    [{"samples": 0}, {"rows_per_shot": 0}, {"attempts": 0}, {"longest_latency_frames": 4605}],
)
def test_waveforms_that_cannot_be_are_refused(make_audio, settings):
    with pytest.raises(LimitError, match=f"audio: {next(iter(settings))}"):
        make_audio(**settings)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.TIMEOUT, InstrumentTimeout),
        (Fault.DROP, ConnectionLost),
        (Fault.REFUSE, InstrumentRefused),
        (Fault.TRUNCATE, ProtocolError),
    ],
)
def test_each_fault_is_one_clear_error(audio, plate_rig_of_echo, fault, error):
    audio.start()
    plate_rig_of_echo.inject("audio", fault, on="exchange")
    with pytest.raises(error, match="audio: ") as caught:
        audio.play_and_record(drives(1))
    assert caught.value.instrument == "audio"
    audio.start()
    assert audio.play_and_record(drives(1)).in_sync.all()


def test_another_interface_at_the_address(audio, plate_rig_of_echo):
    plate_rig_of_echo.inject("audio", Fault.IDENTITY)
    with pytest.raises(IdentityError, match="44100 Hz"):
        audio.start()


def test_shots_take_their_time_where_times_are_honoured(echo, monkeypatch):
    slept = []
    monkeypatch.setattr("threading.Event.wait", lambda _, seconds: slept.append(seconds))
    for honour_times in (False, True):
        with AudioPlate(plate_rig(echo, honour_times=honour_times).instruments["audio"]) as plate:
            plate.start()
            plate.play_and_record(drives(20))
    assert slept == [pytest.approx(0.1), pytest.approx(2.0)]


def test_the_safe_state_is_a_stream_that_stands_still(audio, plate_rig_of_echo):
    port = plate_rig_of_echo.instruments["audio"]
    audio.start()
    assert port.running
    audio.shutdown()
    assert not port.running
    with pytest.raises(ConnectionLost, match="not running"):
        audio.play_and_record(drives(1))
    audio.start()
    audio.close()
    assert not port.running


def test_close_gives_the_interface_back_even_if_it_does_not_stop():
    port = ListedPort()

    def broken():
        raise PortLost("unplugged")

    port.stop = broken
    plate = AudioPlate(port)
    with pytest.raises(ConnectionLost, match="unplugged"):
        plate.close()
    plate.close()
    assert port.calls == ["close"]

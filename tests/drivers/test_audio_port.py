"""PortAudio's end of the wire, with a PortAudio made of plain Python: its callback by hand."""

import sys
import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from drivers.mock.firmware.audio import SimulatedAudio
from drivers.plates import audio_port
from drivers.plates.audio_port import (
    BLOCK_FRAMES,
    PortAborted,
    PortLost,
    PortTimeout,
    SounddevicePort,
)

QUIET = SimpleNamespace(
    input_underflow=False, input_overflow=False, output_underflow=False, output_overflow=False
)


class PortAudioError(Exception):
    pass


class Stream:
    """A stream whose blocks the test asks for; while it is `driven`, a thread does."""

    def __init__(self, callback, **options):
        self.options = options
        self.callback = callback
        self.active = False
        self.closed = False
        self.played = []
        self.heard = np.zeros((BLOCK_FRAMES, 2), dtype=np.float32)
        self.status = QUIET
        self._driver = None

    def start(self):
        self.active = True

    def stop(self):
        self.active = False
        if self._driver is not None:
            self._driver.join()

    def close(self):
        self.closed = True

    def block(self):
        played = np.full((BLOCK_FRAMES, 2), np.nan, dtype=np.float32)
        # what is heard is what the block before played
        self.callback(self.heard, played, BLOCK_FRAMES, None, self.status)
        self.played.append(played)
        self.heard = played
        return played

    def drive(self):
        def run():
            while self.active:
                self.block()

        self._driver = threading.Thread(target=run)
        self._driver.start()


@pytest.fixture
def sound(monkeypatch):
    """Return the stand-in for `sounddevice`; its streams are listed, the last one first."""
    streams = []

    def make(**options):
        streams.insert(0, Stream(**options))
        return streams[0]

    module = SimpleNamespace(
        Stream=make,
        PortAudioError=PortAudioError,
        streams=streams,
        query_devices=lambda name, kind: {"name": f"{name} USB", "hostapi": 1},
        query_hostapis=lambda index: {"name": f"host {index}"},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    yield module
    for stream in streams:
        stream.stop()


def frames(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


def test_a_shot_goes_out_as_it_is_and_comes_back_a_block_later(sound):
    port = SounddevicePort("Scarlett", timeout_s=5)
    port.start()
    (stream,) = sound.streams
    stream.drive()
    sent = frames(1000)
    shot = port.exchange(sent)
    assert shot.flags == ()
    assert np.array_equal(shot.recorded[BLOCK_FRAMES:], sent[:-BLOCK_FRAMES])
    port.close()
    played = np.concatenate(stream.played)
    first = np.flatnonzero((played == sent[0]).all(axis=1))[0]
    assert np.array_equal(played[first : first + 1000], sent)
    assert not played[:first].any()
    assert not played[first + 1000 :].any()
    assert stream.closed


def test_the_stream_is_opened_once_with_explicit_options(sound):
    port = SounddevicePort("Scarlett", timeout_s=5)
    port.start()
    port.start()
    (stream,) = sound.streams
    assert stream.options == {
        "samplerate": 48000,
        "blocksize": 256,
        "device": "Scarlett",
        "channels": 2,
        "dtype": "float32",
        "latency": 0.02,
    }
    assert port.describe() == "Scarlett USB, host 1, 48000 Hz"


def test_flags_of_any_block_are_kept(sound):
    port = SounddevicePort("Scarlett", timeout_s=5)
    port.start()
    stream = sound.streams[0]
    stream.status = SimpleNamespace(**{**vars(QUIET), "output_underflow": True})
    stream.drive()
    assert port.exchange(frames(300)).flags == ("output underflow",)
    stream.status = QUIET
    assert port.exchange(frames(300)).flags == ()


def test_a_waveform_that_is_cut_off_fades_within_a_block(sound, monkeypatch):
    class OneBlock(threading.Event):
        """Let one block through while somebody waits; then the stream stands still."""

        def wait(self, timeout=None):
            if not sound.streams[0].played:
                sound.streams[0].block()
            return super().wait(timeout)

    monkeypatch.setattr(audio_port, "_Take", partial(audio_port._Take, done=OneBlock()))
    port = SounddevicePort("Scarlett", timeout_s=0.1)
    port.start()
    with pytest.raises(PortTimeout, match="stands still after 256 of 600 frames"):
        port.exchange(np.ones((600, 2), dtype=np.float32))
    fade, silence = sound.streams[0].block(), sound.streams[0].block()
    np.testing.assert_allclose(fade[:, 0], np.linspace(1, 0, BLOCK_FRAMES), atol=1e-6)
    assert not silence.any()


def test_an_aborted_shot_fades_within_a_block(sound, monkeypatch):
    class Interrupted(threading.Event):
        """Let one block through, and then somebody abort the shot."""

        def wait(self, timeout=None):
            sound.streams[0].block()
            port.abort()
            return super().wait(timeout)

    monkeypatch.setattr(audio_port, "_Take", partial(audio_port._Take, done=Interrupted()))
    port = SounddevicePort("Scarlett", timeout_s=2)
    port.abort()  # nothing runs
    port.start()
    with pytest.raises(PortAborted, match="256 of 600 frames"):
        port.exchange(np.ones((600, 2), dtype=np.float32))
    fade, silence = sound.streams[0].block(), sound.streams[0].block()
    np.testing.assert_allclose(fade[:, 0], np.linspace(1, 0, BLOCK_FRAMES), atol=1e-6)
    assert not silence.any()


def test_a_stream_that_ends_in_a_shot_is_told_at_once(sound):
    port = SounddevicePort("Scarlett", timeout_s=1000)
    port.start()
    stream = sound.streams[0]
    threading.Timer(0.05, stream.stop).start()
    with pytest.raises(PortLost, match="the stream ended after 0 of 600 frames"):
        port.exchange(frames(600))


def test_a_shot_can_be_aborted_from_another_thread(sound):
    port = SounddevicePort("Scarlett", timeout_s=1000)
    port.start()
    threading.Timer(0.05, port.abort).start()
    with pytest.raises(PortAborted, match="aborted after 0 of 600 frames"):
        port.exchange(frames(600))
    with pytest.raises(PortAborted):  # nor does another one begin, until somebody says so
        port.exchange(frames(600))
    sound.streams[0].drive()
    port.start()
    assert port.exchange(frames(600)).flags == ()


def test_after_an_abort_not_a_block_of_another_shot_is_played(sound):
    port = SounddevicePort("Scarlett", timeout_s=5)
    port.start()
    sound.streams[0].drive()
    port.abort()
    with pytest.raises(PortAborted):
        port.exchange(frames(BLOCK_FRAMES))  # shorter than the pause between two looks
    port.stop()
    assert not np.concatenate(sound.streams[0].played).any()


def test_the_simulated_interface_keeps_an_abort_until_it_is_started_too():
    port = SimulatedAudio(lambda drive: drive)
    port.start()
    port.abort()
    for _ in range(2):
        with pytest.raises(PortAborted):
            port.exchange(frames(600))
    assert port.exchanges == 0
    port.start()
    assert port.exchange(frames(600)).flags == ()


def test_stopping_waits_for_the_fade(sound):
    port = SounddevicePort("Scarlett", timeout_s=5)
    port.start()
    stream = sound.streams[0]
    stream.drive()
    before = len(stream.played)
    port.stop()
    assert len(stream.played) > before
    assert not stream.active
    port.stop()


def test_a_stream_that_died_is_opened_anew(sound):
    port = SounddevicePort("Scarlett", timeout_s=5)
    port.start()
    sound.streams[0].active = False
    with pytest.raises(PortLost, match="not running"):
        port.exchange(frames(10))
    port.start()
    assert [stream.closed for stream in sound.streams] == [False, True]


def test_what_portaudio_refuses_is_a_lost_port(sound):
    def refuse(**_):
        raise PortAudioError("Invalid device")

    sound.Stream = refuse
    port = SounddevicePort("Scarlett", timeout_s=5)
    with pytest.raises(PortLost, match=r"'Scarlett' cannot be opened .*Invalid device"):
        port.start()
    sound.query_devices = lambda name, kind: refuse()
    with pytest.raises(PortLost, match="no interface 'Scarlett'"):
        port.describe()
    port.stop()
    port.close()


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(PortLost, match=r"pnnlab\[audio\]"):
        SounddevicePort("Scarlett", timeout_s=5).describe()

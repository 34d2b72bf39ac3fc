"""PortAudio's process: what it does when the library hangs, dies or is not there."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import jack_bench
from drivers.plates.audio_port import BLOCK_FRAMES, PortAborted, PortLost, PortTimeout
from drivers.plates.audio_process import SounddeviceProcess

FAKE = Path(jack_bench.__file__).with_name("fake_portaudio")
LONG = 100_000  # frames, of which the stand-in plays about 250,000 a second


@pytest.fixture
def played(monkeypatch, tmp_path):
    """Put the stand-in for sounddevice where the child finds it; return what is played."""
    file = tmp_path / "played"
    file.touch()
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.setenv("FAKE_PORTAUDIO_PLAYED", str(file))
    return lambda: np.fromfile(file, dtype=np.float32).reshape(-1, 2)


@pytest.fixture
def open_port(played):
    opened = []

    def open_port(device, timeout_s=1.0):
        opened.append(SounddeviceProcess(device, timeout_s=timeout_s))
        return opened[-1]

    yield open_port
    for port in opened:
        port.close()


def frames(count, level=None):
    if level is not None:
        return np.full((count, 2), level, dtype=np.float32)
    return np.random.default_rng(0).uniform(-1, 1, (count, 2)).astype(np.float32)


def child_of(port):
    return int(re.search(r"process (\d+)", port.describe())[1])


def is_alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_shot_goes_through_both_pipes_unchanged(open_port):
    port = open_port("Scarlett")
    assert re.fullmatch(r"Scarlett, process \d+ of python[\d.]*, 48000 Hz", port.describe())
    port.start()
    sent = frames(3000)
    shot = port.exchange(sent)
    assert shot.flags == ()
    assert np.array_equal(shot.recorded[BLOCK_FRAMES:], sent[:-BLOCK_FRAMES])
    assert child_of(port) != os.getpid()


def test_close_ends_the_process_and_stop_needs_none(open_port):
    port = open_port("Scarlett")
    port.stop()
    child = child_of(port)
    port.close()
    assert not is_alive(child)
    port.close()
    with pytest.raises(PortLost, match="not running"):
        port.exchange(frames(10))
    port.start()
    assert port.exchange(frames(1000)).flags == ()


def test_a_stream_that_was_stopped_takes_no_shot_until_it_is_started(open_port):
    port = open_port("Scarlett")
    port.start()
    port.stop()
    with pytest.raises(PortLost, match="not running"):
        port.exchange(frames(10))
    port.start()
    port.exchange(frames(10))


def test_a_process_that_dies_is_told_with_its_status_and_replaced(open_port):
    port = open_port("dies")
    port.start()
    for _ in range(2):
        with pytest.raises(PortLost, match=r"exchange: its process ended \(status 3\)"):
            port.exchange(frames(LONG))
        port.start()
    assert port.exchange(frames(1000)).recorded.shape == (1000, 2)


def test_a_stream_that_stands_still_is_told(open_port):
    port = open_port("stands still", timeout_s=0.2)
    port.start()
    with pytest.raises(PortTimeout, match=rf"stands still after \d+ of {LONG} frames"):
        port.exchange(frames(LONG))
    port.start()
    assert port.exchange(frames(1000)).flags == ()


def test_a_call_that_never_returns_ends_with_its_process(open_port, monkeypatch):
    monkeypatch.setattr("drivers.plates.audio_process._ANSWER_S", 0.3)
    port = open_port("hangs")
    port.start()
    child = child_of(port)
    port.stop()
    assert not is_alive(child)
    port.start()
    assert port.exchange(frames(1000)).flags == ()
    child = child_of(port)
    port.close()
    assert not is_alive(child)


def test_an_abort_of_another_thread_fades_the_shot_out(open_port, played):
    port = open_port("Scarlett")
    port.start()
    aborting = threading.Thread(target=lambda: (sounding(played), port.abort()))
    aborting.start()
    with pytest.raises(PortAborted, match=rf"aborted after \d+ of {50 * LONG} frames"):
        port.exchange(frames(50 * LONG, level=0.5))
    aborting.join()
    port.close()
    check_fade(played())


def test_after_an_abort_no_shot_begins_until_the_next_start(open_port, played):
    port = open_port("Scarlett")
    port.start()
    port.abort()
    with pytest.raises(PortAborted):
        port.exchange(frames(1000, level=0.5))
    assert not played().any()
    port.start()
    port.exchange(frames(1000, level=0.5))
    assert played().any()


def test_a_stop_of_another_thread_does_too(open_port, played):
    port = open_port("Scarlett")
    port.start()
    stopping = threading.Thread(target=lambda: (sounding(played), port.stop()))
    stopping.start()
    with pytest.raises(PortAborted):
        port.exchange(frames(50 * LONG, level=0.5))
    stopping.join()
    check_fade(played())


def test_signals_for_the_service_do_not_cut_the_sound_off(open_port):
    port = open_port("Scarlett")
    port.start()
    child = child_of(port)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child, number)
    assert port.exchange(frames(1000)).flags == ()
    assert child_of(port) == child


def test_what_portaudio_says_is_passed_on(open_port, monkeypatch, tmp_path):
    with pytest.raises(PortLost, match=r"no interface 'nobody' .*No input device"):
        open_port("nobody").describe()
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PortLost, match=r"pnnlab\[audio\].*PortAudio library not found"):
        open_port("Scarlett").start()


def sounding(played):
    """Return when something is played."""
    deadline = time.monotonic() + 30
    while not played().any() and time.monotonic() < deadline:
        time.sleep(0.01)


def check_fade(heard):
    (sound,) = np.nonzero(heard[:, 0])
    steps = np.abs(np.diff(heard[sound[0] : sound[-1] + 2, 0]))
    assert len(sound) < 50 * LONG
    assert 0 < steps.max() <= 0.5 / (BLOCK_FRAMES - 1) * 1.01

"""Real sounddevice, PortAudio and JACK without a sound interface; at the far end a plate."""

import copy
import os
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import numpy as np
import pytest

from drivers.errors import ConnectionLost, IdentityError
from drivers.mock.physics.plate import OscillatingPlate
from drivers.plates.audio import AudioPlate
from drivers.plates.audio_port import PortAborted
from drivers.transport import open_audio
from jack_bench import DEBIAN_PACKAGES, RATE_HZ, JackBench, missing
from lab.bench import open_bench
from lab.bench_config import BenchConfig

pytestmark = pytest.mark.skipif(
    bool(missing()),
    reason=f"{missing()} not installed (Debian: {' '.join(DEBIAN_PACKAGES)}; the extra dev)",
)
FADE_FRAMES = 256
LEVEL = 0.8


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    name = f"pnnlab-test-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JACK_DEFAULT_SERVER", name)
        bench = JackBench(name, tmp_path_factory.mktemp("jack"))
        yield bench
        bench.close()


@pytest.fixture
def port(bench):
    port = open_audio("audio://plate", {}, timeout_s=2)
    yield port
    port.close()


@pytest.fixture
def plate(port):
    # a machine that is busy with other things is late more often than an interface may be
    with AudioPlate(port, rows_per_shot=4, attempts=20, expect_idn="JACK.*48000 Hz") as plate:
        yield plate


def drives(rows, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (rows, 196))


def expected(drive):
    return OscillatingPlate(gap=0.0, noise=0.0).forward(drive, np.zeros(len(drive)))


def play_for_ever(plate):
    while True:
        plate.play_and_record(drives(4))


def test_it_is_the_interface_that_the_bench_file_expects(plate, port):
    assert plate.identify() == "plate, JACK Audio Connection Kit, 48000 Hz"
    with pytest.raises(IdentityError, match="JACK"):
        AudioPlate(port, expect_idn="Scarlett").start()


def test_each_row_is_answered_as_the_plate_would(plate):
    plate.start()
    lags = set()
    for seed in range(3):
        drive = drives(4, seed)
        recording = plate.play_and_record(drive)
        assert recording.in_sync.all()
        np.testing.assert_allclose(recording.response, expected(drive), atol=1e-5)
        lags.add(plate._aligner.lag)
    assert len(lags) == 1  # one stream: one latency
    assert min(lags) > 0


def test_only_the_address_tells_a_simulated_bench_from_this_one(bench):
    simulated = tomllib.loads(Path("bench-plate.toml").read_text(encoding="utf-8"))
    simulated["rigs"]["plate"] |= {"gap": 0.0, "noise": 0.0}
    simulated["instruments"]["sound"]["settings"]["attempts"] = 20
    real = copy.deepcopy({key: part for key, part in simulated.items() if key != "rigs"})
    real["instruments"]["sound"]["address"] = "audio://plate"
    x, theta = drives(4, seed=1), drives(4, seed=2)
    y = []
    for config in (simulated, real):
        with open_bench(BenchConfig.model_validate(config)) as opened:
            rows = opened.system("plate").transform(x, theta)
            assert not rows.out_of_sync.any()
            y.append(rows.y)
    np.testing.assert_allclose(*y, atol=1e-5)


def test_a_shot_that_ran_under_or_over_is_repeated(plate, bench, port):
    plate.start()
    flags = []
    exchange = port.exchange

    def noting(frames):
        shot = exchange(frames)
        flags.append(shot.flags)
        return shot

    port.exchange = noting
    bench.stall()
    drive = drives(4)
    recording = plate.play_and_record(drive)
    assert flags[0]
    assert flags[-1] == ()
    assert recording.in_sync.all()
    np.testing.assert_allclose(recording.response, expected(drive), atol=1e-5)


def test_a_server_that_dies_is_a_lost_connection_and_the_next_session_works(plate, bench):
    plate.start()
    bench.forget()
    killer = threading.Thread(target=lambda: (bench.wait_for_sound(), bench.kill_server()))
    killer.start()
    with pytest.raises(ConnectionLost, match="plate: play and record: the stream ended"):
        play_for_ever(plate)
    killer.join()
    with pytest.raises(ConnectionLost, match="no interface 'plate'"):
        plate.start()
    plate.shutdown()
    bench.start()
    plate.start()
    recording = plate.play_and_record(drives(4))
    np.testing.assert_allclose(recording.response, expected(drives(4)), atol=1e-5)


def tone():
    """Return a level that is reached slowly and stays, for ten seconds."""
    level = np.minimum(np.arange(10 * RATE_HZ) / 4800, 1.0)[:, None]
    return (LEVEL * level * [1.0, 0.0]).astype(np.float32)


def abort_and_close(bench):
    port = open_audio("audio://plate", {}, timeout_s=2)
    port.start()

    def stop():
        bench.wait_for_sound()
        port.abort()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(PortAborted):
        port.exchange(tone())
    stopper.join()
    port.close()


KILLED = """
import numpy as np
from drivers.transport import open_audio

port = open_audio("audio://plate", {}, timeout_s=2)
port.start()
port.exchange(np.load("tone.npy"))
"""


def kill_outright(bench, folder):
    np.save(folder / "tone.npy", tone())
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, cwd=folder, env=environment) as process:
        bench.wait_for_sound()
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("how", ["aborted and closed", "killed outright"])
def test_sound_that_is_cut_off_fades_to_silence_without_a_click(bench, tmp_path, how):
    for _ in range(5):
        bench.forget()
        if how == "killed outright":
            kill_outright(bench, tmp_path)
        else:
            abort_and_close(bench)
        heard, xruns = bench.heard()
        if not xruns:  # else JACK itself left something out
            break
    else:
        pytest.skip("this machine is too busy to hear a tone without a gap")
    sound = np.flatnonzero(heard)
    steps = np.abs(np.diff(heard[sound[0] : sound[-1] + 2]))
    assert heard.max() > LEVEL / 20  # it was cut off on the way up, or later
    assert steps.max() <= 1.01 * LEVEL / (FADE_FRAMES - 1)
    assert len(sound) < 4 * RATE_HZ  # long before its end
    assert len(heard) - sound[-1] > RATE_HZ / 10  # and then silence

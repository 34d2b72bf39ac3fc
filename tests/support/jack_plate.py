"""The simulated plate of gap 0 as a JACK client: a stream, not rows; run by `JackBench`.

Its linear middle is a convolution with the simulated plate's own answer to one impulse.
"""

import json
import sys
import threading
import time
from typing import Any

import jack
import numpy as np

from drivers.mock.physics.plate import OscillatingPlate
from drivers.mock.physics.plate_table import FULL_SCALE, REST_SAMPLES, TEXTBOOK

A, M = TEXTBOOK.amplifier, TEXTBOOK.microphone
SILENT_FRAMES = 9_600  # after a sound, until it counts as over


def impulse_response() -> Any:
    """Return what the microphone's place feels of a force of 1 for one sample, (samples,)."""
    impulse = np.zeros((1, REST_SAMPLES))
    impulse[0, 0] = 1.0
    heard = OscillatingPlate(gap=0.0, noise=0.0).forward(impulse, np.zeros(1))[0]
    return np.arctanh(M * FULL_SCALE * heard) / M / np.tanh(A)


class Plate:
    """What the process callback does, and what it has seen."""

    def __init__(self) -> None:
        self._response = impulse_response()
        self._force = np.zeros(REST_SAMPLES - 1)
        self._blocks: list[Any] = []
        self._silent = 0
        self.stalls = False
        self.xruns = 0
        self.sounded = threading.Event()
        self.fell_silent = threading.Event()

    def play(self, drive: Any) -> Any:
        """Return what is heard of one block (frames,), and remember the block."""
        self._remember(drive)
        force = np.concatenate([self._force, np.tanh(A * drive)])
        self._force = force[len(drive) :]
        felt = np.convolve(force, self._response, mode="valid")
        return np.tanh(M * felt) / M / FULL_SCALE

    def _remember(self, drive: Any) -> None:
        self._blocks.append(drive.copy())
        if not drive.any():
            self._silent += len(drive)
            if self.sounded.is_set() and self._silent >= SILENT_FRAMES:
                self.fell_silent.set()
            return
        self._silent = 0
        self.sounded.set()
        if self.stalls:
            self.stalls = False
            time.sleep(0.3)  # what a host does that is too busy

    def forget(self) -> None:
        """Begin to listen."""
        self._blocks, self._silent, self.xruns = [], 0, 0
        self.sounded.clear()
        self.fell_silent.clear()

    def heard(self) -> Any:
        """Return all blocks since, (frames,)."""
        return np.concatenate(self._blocks)


def connected(server: str) -> Any:
    """Return a client of a server that may only be starting."""
    for _ in range(200):
        try:
            return jack.Client("plate", servername=server, no_start_server=True)
        except jack.JackOpenError:
            time.sleep(0.05)
    raise SystemExit(f"no JACK server {server}")


def main() -> None:
    plate, client = Plate(), connected(sys.argv[1])
    inputs = [client.inports.register(f"in_{n}") for n in (1, 2)]
    outputs = [client.outports.register(f"out_{n}") for n in (1, 2)]

    @client.set_process_callback
    def process(frames: int) -> None:
        drive, reference = (port.get_array() for port in inputs)
        outputs[0].get_array()[:] = plate.play(drive)
        outputs[1].get_array()[:] = reference

    @client.set_xrun_callback
    def count(_: float) -> None:
        plate.xruns += plate.sounded.is_set() and not plate.fell_silent.is_set()

    client.activate()
    tell(ok=True)
    for line in sys.stdin:
        serve(plate, *line.split())
    client.close()


def serve(plate: Plate, command: str, *arguments: str) -> None:
    ok = True
    match command:
        case "stall":
            plate.stalls = True
        case "forget":
            plate.forget()
        case "sound":
            ok = plate.sounded.wait(10)
        case "heard":
            ok = plate.fell_silent.wait(10)
            np.save(arguments[0], plate.heard())
    tell(ok=ok, xruns=plate.xruns)


def tell(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


main()

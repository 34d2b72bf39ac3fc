"""A stand-in for the package `sounddevice`, for a child process: every output is its own input.

The interface's name says what goes wrong: "hangs" in stop and close, "dies" after some blocks,
"stands still" after some. What is played is appended to the file FAKE_PORTAUDIO_PLAYED.
"""

import os
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np

BLOCKS_UNTIL_TROUBLE = 20
print("a library's own chatter", flush=True)  # where answers go if nobody takes care


class PortAudioError(Exception):
    pass


class Stream:
    def __init__(self, device, callback, blocksize, channels, **_):
        self._device, self._callback = device, callback
        self._shape = (blocksize, channels)
        self.active = False
        self._thread = threading.Thread(target=self._run)

    def start(self):
        self.active = True
        self._thread.start()

    def _run(self):
        heard = np.zeros(self._shape, dtype=np.float32)
        sounding = 0
        with open(os.environ["FAKE_PORTAUDIO_PLAYED"], "ab") as played:
            while self.active:
                if sounding >= BLOCKS_UNTIL_TROUBLE:
                    if "dies" in self._device:
                        os._exit(3)
                    if "stands still" in self._device:
                        time.sleep(0.01)
                        continue
                out = np.empty(self._shape, dtype=np.float32)
                self._callback(heard, out, len(out), None, QUIET)
                sounding += bool(out.any())
                played.write(out.tobytes())
                played.flush()
                heard = out
                time.sleep(0.001)

    def stop(self):
        if "hangs" in self._device:
            threading.Event().wait()
        self.active = False
        self._thread.join()

    def close(self):
        pass


QUIET = SimpleNamespace(
    input_underflow=False, input_overflow=False, output_underflow=False, output_overflow=False
)


def query_devices(name, kind):
    if name == "nobody":
        raise ValueError("No input device matching 'nobody'")
    return {"name": name, "hostapi": 0}


def query_hostapis(index):
    return {"name": f"process {os.getpid()} of {os.path.basename(sys.executable)}"}

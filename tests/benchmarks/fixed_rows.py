"""The device of the scheduler's benchmarks, whose row is one blocking call of a fixed time.

And `OtherLoad`: what else the machine did meanwhile, without which no figure means much.
"""

import os
import time
import zlib
from array import array
from collections.abc import Sequence

import numpy as np

from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.systems.base import PhysicalSystem, Rows, SystemDescription

CHANNELS = 64
_NOTHING = bytes(8192)  # to be summed up in about 2 us, for which zlib lets the interpreter go
_OVERSLEPT_S = 3e-4  # a sleep may end so much too late: the rest is waited for awake


class FixedRows(PhysicalSystem):
    """y = x; every call takes `row_s` by the clock, from when it is made.

    begun, ended: when each row's call began and ended, `time.perf_counter` seconds; streams: the
    noise stream of its key, -1 without.
    """

    def __init__(self, row_s: float, name: str = "bench") -> None:
        super().__init__()
        x, theta, y = (ArraySpec(n, "V", (CHANNELS,), 0.0, 1.0) for n in ("x", "theta", "y"))
        self.description = SystemDescription(name, x, theta, y, row_s)
        self.instruments = ()
        self.forget()

    def forget(self) -> None:
        """Start new records."""
        self.begun, self.ended, self.streams = array("d"), array("d"), array("q")

    def measure(self, x: Array, theta: Array, keys: Sequence[RowKey] | None = None) -> Rows:
        begun = time.perf_counter()
        self.begun.append(begun)
        self.streams.append(-1 if keys is None else keys[0].stream)
        rows = Rows(x.copy(), np.zeros(len(x), dtype=bool))
        wait_until(begun + self.description.row_time_s)
        self.ended.append(time.perf_counter())
        return rows

    def rows_between(self, start_s: float, end_s: float) -> dict[int, int]:
        """Return how many rows of each stream ended in a window."""
        ended = np.frombuffer(self.ended)
        inside = np.frombuffer(self.streams, dtype=np.int64)[(ended > start_s) & (ended <= end_s)]
        streams, counts = np.unique(inside, return_counts=True)
        return dict(zip(streams.tolist(), counts.tolist(), strict=True))

    def occupied_s(self, start_s: float, end_s: float) -> float:
        """Return how long the calls that ended in a window took, late returns included."""
        begun, ended = np.frombuffer(self.begun), np.frombuffer(self.ended)
        inside = (ended > start_s) & (ended <= end_s)
        return float((ended - begun)[inside].sum())

    def gaps_us(self) -> Array:
        """Return the times between the end of one call and the beginning of the next, us."""
        return 1e6 * (np.frombuffer(self.begun)[1:] - np.frombuffer(self.ended)[:-1])


def wait_until(deadline_s: float) -> None:
    """Return at a time of `perf_counter`, without the interpreter, as a call to hardware would."""
    left_s = deadline_s - time.perf_counter()
    if left_s > _OVERSLEPT_S:
        time.sleep(left_s - _OVERSLEPT_S)
    # awake, but neither with the interpreter nor giving up the processor
    while time.perf_counter() < deadline_s:
        zlib.crc32(_NOTHING)


class OtherLoad:
    """How many processors other processes kept busy since this was made (Linux; else 0)."""

    def __init__(self) -> None:
        self._begun = (time.perf_counter(), _machine_s(), time.process_time())

    def cores(self) -> float:
        now = (time.perf_counter(), _machine_s(), time.process_time())
        wall, machine, own = (b - a for a, b in zip(self._begun, now, strict=True))
        return max(0.0, (machine - own) / wall)


def _machine_s() -> float:
    """Return the processor time that this machine has spent at work, s."""
    try:
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, softirq, *_ = map(int, stat.readline().split()[1:])
    except OSError:
        return 0.0
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")

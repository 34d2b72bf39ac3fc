"""A simulated duplex sound interface, in memory: its outputs wired to a plant and to its own input.

Its latency is a new one at every shot, by up to three frames, as that of a real interface may be.
Silence between the rows of a waveform is not computed: the plant plays each stretch of sound that
follows a long enough silence from rest, and between them the microphone hears nothing at all.
"""

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivers.mock.faults import Fault, FaultQueue
from drivers.mock.firmware.bounds import Bounds
from drivers.mock.physics.plate_table import REST_SAMPLES
from drivers.plates.audio_port import (
    SAMPLE_RATE_HZ,
    Frames,
    PortAborted,
    PortLost,
    PortRefused,
    PortTimeout,
    Shot,
)
from drivers.spec import Array

LATENCY_FRAMES = 293
JITTER_FRAMES = 3
FULL_SCALE = Bounds(-1.0, 1.0)
Indices = NDArray[np.intp]

_CABLE = 0.9  # share of output 2 that arrives at input 2
_ANY_CALL = frozenset({Fault.TIMEOUT, Fault.DROP, Fault.REFUSE})
_OF_A_SHOT = frozenset({Fault.GARBAGE, Fault.TRUNCATE})


class AudioFault(StrEnum):
    """One-shot faults that only a sound interface has."""

    UNDERFLOW = "output underflow"
    """The host was late: part of the waveform was not played, and a flag says so."""
    OVERFLOW = "input overflow"
    """The host was late: part of the recording is lost, and a flag says so."""
    SLIP = "slip"
    """A frame is lost in the middle of a row, unnoticed; what follows comes one frame early."""


class SimulatedAudio:
    """The interface of a plate rig; a `DuplexPort`, with faults to arm.

    clock_ppm: how much faster the inputs' clock runs than the outputs', as if they were two devices
    (0: one clock for both, as it should be). exchanges: how many waveforms were played.
    out_of_limits: values that arrived outside `bounds` (output 1; full scale, for tests narrower)
    or full scale (output 2), and rows beyond one of the figures in `bounds`.
    """

    def __init__(self, play: Callable[[Array], Array], *, honour_times: bool = False) -> None:
        """Wire the interface to a plant: play(drive (rows, samples)) -> what the microphone sends.

        honour_times: let a shot take the time that its frames last.
        """
        self.clock_ppm = 0.0
        self.exchanges = 0
        self.bounds = FULL_SCALE
        self.out_of_limits = 0
        self.running = False
        self._play = play
        self._honour_times = honour_times
        self._aborted = threading.Event()
        self._faults = FaultQueue()
        self._sound_faults: list[AudioFault] = []
        self._jitter = np.random.Generator(np.random.Philox(key=3))

    def inject(self, fault: Fault | AudioFault, on: str = "") -> None:
        """Arm `fault` for the next call (describe, start, exchange, stop) that contains `on`.

        An AudioFault strikes the next shot, whatever `on` says.
        """
        if isinstance(fault, AudioFault):
            self._sound_faults.append(fault)
        else:
            self._faults.arm(fault, on)

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._faults.clear()
        self._sound_faults.clear()

    @property
    def safe(self) -> bool:
        """Whether nothing is played."""
        return not self.running

    # --- DuplexPort ---------------------------------------------------------------------------

    def describe(self) -> str:
        """Return a name that says what it is."""
        self._meet("describe")
        if self._faults.take(b"describe", frozenset({Fault.IDENTITY})):
            return "Built-in microphone, 44100 Hz"
        return f"Simulated duplex interface, {SAMPLE_RATE_HZ} Hz"

    def start(self) -> None:
        """Let the stream run."""
        self._aborted.clear()
        self._meet("start")
        self.running = True

    def exchange(self, frames: Frames) -> Shot:
        """Play (frames, 2) and record as many."""
        self._meet("exchange")
        if not self.running:
            raise PortLost("the stream is not running")
        if self._aborted.is_set():
            raise PortAborted("aborted")
        self.exchanges += 1
        sound = _find_sound(frames)
        self._count(frames, sound)
        if self._honour_times and self._aborted.wait(len(frames) / SAMPLE_RATE_HZ):
            raise PortAborted("aborted")
        fault = self._sound_faults.pop(0) if self._sound_faults else None
        if fault in (AudioFault.UNDERFLOW, AudioFault.OVERFLOW):
            # the row keys wait for the shot that counts
            return Shot(np.zeros_like(frames), (str(fault),))
        recorded = self._record(frames, sound, slips=fault is AudioFault.SLIP)
        match self._faults.take(b"exchange", _OF_A_SHOT):
            case Fault.GARBAGE:
                rng = np.random.default_rng(0)
                recorded = rng.uniform(-1, 1, recorded.shape).astype(np.float32)
            case Fault.TRUNCATE:
                recorded = recorded[: len(recorded) // 2]
        return Shot(recorded)

    def abort(self) -> None:
        """End a shot that takes its time, and any before the next `start`."""
        self._aborted.set()

    def stop(self) -> None:
        """Fall silent."""
        self._meet("stop")
        self.running = False

    def close(self) -> None:
        """Stop; whoever opens the address again finds the same interface."""
        self.running = False

    # --- the far end of the wire --------------------------------------------------------------

    def _meet(self, call: str) -> None:
        """Let an armed fault of any call strike this one."""
        match self._faults.take(call.encode(), _ANY_CALL):
            case Fault.TIMEOUT:
                raise PortTimeout("the stream does not advance")
            case Fault.DROP:
                self.running = False
                raise PortLost("the interface went away")
            case Fault.REFUSE:
                raise PortRefused("unanticipated host error")

    def _count(self, frames: Frames, sound: "_Sound") -> None:
        """Count what should not have arrived; between the stretches of sound all is 0."""
        self.out_of_limits += self.bounds.outside(sound.drive)
        self.out_of_limits += self.bounds.rows_outside(sound.drive)
        self.out_of_limits += FULL_SCALE.outside(frames[sound.where, 1])

    def _record(self, frames: Frames, sound: "_Sound", *, slips: bool) -> Frames:
        recorded = np.zeros_like(frames)
        latency = LATENCY_FRAMES + int(self._jitter.integers(0, JITTER_FRAMES + 1))
        if len(sound.where):
            where = sound.where
            heard = self._play(sound.drive.astype(np.float64))
            inside = sound.inside & (where + latency < len(frames))
            recorded[where[inside] + latency, 0] = heard[inside]
            recorded[where[inside] + latency, 1] = _CABLE * frames[where[inside], 1]
        if slips:
            stretch = sound.where[len(sound.where) // 2]
            middle = int(stretch[0] + stretch[-1]) // 2 + latency
            recorded[middle:-1] = recorded[middle + 1 :]
        if self.clock_ppm:
            source = np.arange(len(frames)) * (1 + 1e-6 * self.clock_ppm)
            recorded = recorded[source.astype(int).clip(0, len(frames) - 1)]
        return recorded


class _Sound(NamedTuple):
    """The stretches of sound of a waveform, all arrays (stretches, longest).

    where: frame numbers, the last one repeated behind a shorter stretch; inside: not behind it;
    drive: what output 1 plays, 0 behind it.
    """

    where: Indices
    inside: NDArray[np.bool_]
    drive: NDArray[np.float32]


def _find_sound(frames: Frames) -> _Sound:
    first, last = _stretches(frames)
    longest = int((last - first).max(initial=-1)) + 1
    where = first[:, None] + np.arange(longest)
    inside = where <= last[:, None]
    where = np.where(inside, where, last[:, None])
    return _Sound(where, inside, np.where(inside, frames[where, 0], np.float32(0)))


def _stretches(frames: Frames) -> tuple[Indices, Indices]:
    """Return first and last frame of every stretch of sound between silences that let rest."""
    both = np.ascontiguousarray(frames).view(np.uint64)[:, 0]  # two channels at a time
    sound = np.flatnonzero(both != 0)  # several times faster on booleans
    if not len(sound):
        return sound, sound
    silence = np.flatnonzero(np.diff(sound) > REST_SAMPLES)
    return sound[np.append(0, silence + 1)], sound[np.append(silence, len(sound) - 1)]

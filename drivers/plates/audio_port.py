"""One duplex audio stream: what `AudioPlate` asks of a sound interface, and PortAudio's answer.

Two output and two input channels on one clock, 48 kHz. What an interface can do wrong:

PortError
├── PortLost       there is no such interface, or it went away
├── PortTimeout    the stream does not advance
├── PortRefused    the interface does not do what is asked of it
└── PortAborted    somebody asked the shot to end
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 48_000
CHANNELS = 2
BLOCK_FRAMES = 256
LATENCY_S = 0.02
_LOOK_S = 0.05  # between two looks at a stream that somebody waits for

Frames = NDArray[np.float32]


class PortError(Exception):
    """Report what an interface did wrong; the driver adds its own name."""


class PortLost(PortError):
    """There is no such interface, or it went away."""


class PortTimeout(PortError):
    """The stream does not advance."""


class PortRefused(PortError):
    """The interface does not do what is asked of it."""


class PortAborted(PortError):
    """Somebody asked the shot to end."""


@dataclass(frozen=True)
class Shot:
    """What was recorded while a waveform was played: (frames, 2), -1 to 1 of full scale.

    flags: what went wrong meanwhile, such as "output underflow"; empty if nothing did.
    """

    recorded: Frames
    flags: tuple[str, ...] = ()


class DuplexPort(Protocol):
    """A stream that stays open between shots; blocking, used by one thread at a time.

    Every method may raise PortError.
    """

    def describe(self) -> str:
        """Return the interface's own name and its sample rate."""
        ...

    def start(self) -> None:
        """Let the stream run, silent; idempotent."""
        ...

    def exchange(self, frames: Frames) -> Shot:
        """Play (frames, 2), -1 to 1, and record as many frames, from the same one on."""
        ...

    def abort(self) -> None:
        """Let an exchange that runs, and any before the next `start`, raise PortAborted.

        From any thread; what is played fades out.
        """
        ...

    def stop(self) -> None:
        """Fade to silence and stop the stream; idempotent, and needs no `start`."""
        ...

    def close(self) -> None:
        """Stop, and give the interface back; idempotent."""
        ...


@dataclass
class _Take:
    """A waveform on its way out and what came in so far."""

    frames: Frames
    recorded: Frames
    position: int = 0
    flags: set[str] = field(default_factory=set)
    done: threading.Event = field(default_factory=threading.Event)


class SounddevicePort:
    """A sound interface through PortAudio (package `sounddevice`, the extra `audio`).

    One stream, opened once: latency may change from stream to stream but not within one.
    """

    def __init__(self, device: str, *, timeout_s: float) -> None:
        """Name the interface as PortAudio does; a stream may stand still for timeout_s."""
        self._device = device
        self._timeout_s = timeout_s
        self._stream: Any = None
        self._take: _Take | None = None
        self._last: Frames = np.zeros(CHANNELS, dtype=np.float32)
        self._quiet = threading.Event()
        self._aborted = threading.Event()

    def describe(self) -> str:
        """Return name, host interface and sample rate."""
        sounddevice = _import_sounddevice()
        try:
            device = sounddevice.query_devices(self._device, "input")
            host = sounddevice.query_hostapis(device["hostapi"])["name"]
        except (sounddevice.PortAudioError, ValueError) as error:
            raise PortLost(f"no interface '{self._device}' ({error})") from error
        return f"{device['name']}, {host}, {SAMPLE_RATE_HZ} Hz"

    def start(self) -> None:
        """Open and start the stream, anew if it has died."""
        self._aborted.clear()
        if self._stream is not None and self._stream.active:
            return
        self.close()
        sounddevice = _import_sounddevice()
        self._last[:] = 0
        try:
            self._stream = sounddevice.Stream(
                samplerate=SAMPLE_RATE_HZ,
                blocksize=BLOCK_FRAMES,
                device=self._device,
                channels=CHANNELS,
                dtype="float32",
                latency=LATENCY_S,  # not "high", which differs from host to host
                callback=self._advance,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise PortLost(f"'{self._device}' cannot be opened ({error})") from error

    def exchange(self, frames: Frames) -> Shot:
        """Play and record; raises PortLost, also if the stream does not run, or another."""
        if self._stream is None or not self._stream.active:
            raise PortLost("the stream is not running")
        if self._aborted.is_set():
            raise PortAborted("aborted before it began")
        take = _Take(frames, np.empty_like(frames))
        self._take = take
        try:
            self._wait_for(take)
        finally:
            self._take = None  # whatever was cut off fades
        return Shot(take.recorded, tuple(sorted(take.flags)))

    def _wait_for(self, take: _Take) -> None:
        """Return when a take is done; raise as soon as it will not be."""
        position, moved = 0, time.monotonic()
        while not take.done.wait(_LOOK_S):
            there = f"{take.position} of {len(take.frames)} frames"
            if self._aborted.is_set():
                raise PortAborted(f"aborted after {there}")
            if not self._stream.active:
                raise PortLost(f"the stream ended after {there}")
            if take.position != position:
                position, moved = take.position, time.monotonic()
            elif time.monotonic() - moved > self._timeout_s:
                raise PortTimeout(f"the stream stands still after {there}")

    def abort(self) -> None:
        """Have whoever waits for a shot give it up; what is played fades within a block."""
        self._aborted.set()

    def stop(self) -> None:
        """Fade within a block, then stop."""
        stream = self._stream
        if stream is None or not stream.active:
            return
        self._quiet.clear()
        self._take = None
        longest = time.monotonic() + self._timeout_s  # a dead stream has nothing left to fade
        while not self._quiet.wait(_LOOK_S) and stream.active and time.monotonic() < longest:
            pass
        self._translate(stream.stop)

    def close(self) -> None:
        """Stop and close the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._stream = stream
            try:
                self.stop()
            finally:
                self._stream = None
                self._translate(stream.close)

    def _translate(self, call: Any) -> None:
        try:
            call()
        except _import_sounddevice().PortAudioError as error:
            raise PortLost(f"'{self._device}' {error}") from error

    def _advance(self, recorded: Frames, played: Frames, count: int, _: Any, status: Any) -> None:
        """Serve one block; called by PortAudio, in a thread of its own."""
        take = self._take
        if take is None:
            # whatever was interrupted fades out; after that this is silence
            played[:] = self._last * np.linspace(1, 0, count, dtype=np.float32)[:, None]
            self._last[:] = 0
            self._quiet.set()
            return
        here = slice(take.position, take.position + count)
        part = take.frames[here]
        played[: len(part)] = part
        played[len(part) :] = 0
        self._last[:] = played[-1]
        take.recorded[here] = recorded[: len(part)]
        take.flags.update(name for name in _FLAGS if getattr(status, name.replace(" ", "_")))
        take.position += len(part)
        if take.position == len(take.frames):
            self._take = None
            take.done.set()


_FLAGS = ("input underflow", "input overflow", "output underflow", "output overflow")


def _import_sounddevice() -> Any:
    """Import late: most installations have neither the package nor PortAudio."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise PortLost(
            f"needs the extra 'audio' (pip install 'pnnlab[audio]') and PortAudio ({error})"
        ) from error
    return sounddevice

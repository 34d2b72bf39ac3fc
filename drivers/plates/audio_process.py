"""PortAudio in a process of its own: a `DuplexPort` whose calls come back whatever happens.

Closing a stream whose JACK server has died never returns, and ending the library fails an assertion
that ends the process (PortAudio 19.6.0 as in Debian 12); an interface that is plugged in again is
not found before the library starts anew; and its callback needs the interpreter every few
milliseconds, which a training has for itself. So `SounddevicePort` lives in a child, which
can be given up at any time. The child ends when its parent does, however that happens: it fades to
silence first.

Both ends send pickles: requests (method, arguments), answers (name of a PortError or None, value).
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO, Any

from drivers.plates.audio_port import (
    SAMPLE_RATE_HZ,
    Frames,
    PortAborted,
    PortError,
    PortLost,
    PortRefused,
    PortTimeout,
    Shot,
    SounddevicePort,
)

_OPEN_S = 20.0  # until a new process has looked at all host interfaces
_ANSWER_S = 2.0  # beyond what a call takes by itself
_LOOK_S = 0.1
_ERRORS = {kind.__name__: kind for kind in (PortLost, PortTimeout, PortRefused, PortAborted)}


class SounddeviceProcess:
    """A sound interface through PortAudio, in a child process that is started when it is needed."""

    def __init__(self, device: str, *, timeout_s: float) -> None:
        """Name the interface as PortAudio does; a stream may stand still for timeout_s."""
        self._arguments = [device, repr(timeout_s)]
        self._timeout_s = timeout_s
        self._aborted = threading.Event()  # what runs is to end
        self._refuses = False  # so is what would follow
        self._one_at_a_time = threading.RLock()
        self._child: _Child | None = None

    def describe(self) -> str:
        """Return name, host interface and sample rate."""
        return str(self._ask("describe", longest_s=_OPEN_S))

    def start(self) -> None:
        """Open and start the stream, anew if it has died."""
        self._refuses = False
        self._aborted.clear()
        self._ask("start", longest_s=_OPEN_S)

    def exchange(self, frames: Frames) -> Shot:
        """Play and record; raises PortLost, also if the stream does not run, or another."""
        if self._child is None:
            raise PortLost("the stream is not running")
        if self._refuses:
            raise PortAborted("aborted before it began")
        longest_s = len(frames) / SAMPLE_RATE_HZ + self._timeout_s + _ANSWER_S
        shot: Shot = self._ask("exchange", frames, longest_s=longest_s)
        return shot

    def abort(self) -> None:
        """Have whoever waits for a shot tell the child to give it up; no other begins."""
        self._refuses = True
        self._aborted.set()

    def stop(self) -> None:
        """Fade and stop, whatever another thread plays; what does neither ends with its process."""
        self._aborted.set()
        with self._one_at_a_time, suppress(PortLost, PortTimeout):
            if self._child is not None:
                self._ask("stop", longest_s=_ANSWER_S)

    def close(self) -> None:
        """Let the child fade and end."""
        self._aborted.set()
        with self._one_at_a_time:
            child, self._child = self._child, None
            if child is not None:
                child.end()

    def _ask(self, call: str, *arguments: Any, longest_s: float) -> Any:
        with self._one_at_a_time:
            if self._child is None:
                self._child = _Child(self._arguments, self._aborted)
            try:
                return self._child.ask(call, *arguments, longest_s=longest_s)
            except (PortLost, PortTimeout):  # the next one looks for interfaces anew
                child, self._child = self._child, None
                child.kill()
                raise


class _Child:
    """The process at the other end of two pipes."""

    def __init__(self, arguments: list[str], aborted: threading.Event) -> None:
        self._aborted = aborted
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "drivers.plates.audio_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._requests: Any = self._process.stdin
        self._pipe: Any = self._process.stdout
        self._answers: SimpleQueue[tuple[str | None, Any] | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="audio answers", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while (answer := _receive(self._pipe)) is not None:
            self._answers.put(answer)
        self._answers.put(None)

    def ask(self, call: str, *arguments: Any, longest_s: float) -> Any:
        """Return the answer to one request; raises what the port does."""
        by = time.monotonic() + longest_s
        self._send(call, *arguments)
        told = False
        while (answer := self._next_answer()) is _NOT_YET:
            if self._aborted.is_set() and not told:
                self._send("abort")
                told, by = True, min(by, time.monotonic() + _ANSWER_S)
            if time.monotonic() > by:
                raise PortTimeout(f"{call}: PortAudio does not return")
        if answer is None:
            raise PortLost(f"{call}: its process ended (status {self._process.wait()})")
        error, value = answer
        if error is not None:
            raise _ERRORS[error](value)
        return value

    def _next_answer(self) -> Any:
        try:
            return self._answers.get(timeout=_LOOK_S)
        except Empty:
            return _NOT_YET

    def _send(self, call: str, *arguments: Any) -> None:
        """Send one request; raises PortLost if the child has ended or does not read it."""
        timer = threading.Timer(_ANSWER_S, self._process.kill)
        timer.start()
        try:
            _write(self._requests, (call, arguments))
        except OSError as error:
            raise PortLost(f"{call}: its process ended ({error})") from error
        finally:
            timer.cancel()

    def end(self) -> None:
        """Close the child's input, upon which it fades and ends; kill it if it does not."""
        with suppress(OSError):
            self._requests.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ANSWER_S)
        self.kill()

    def kill(self) -> None:
        """End the child now."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._pipe.close()
        with suppress(OSError):  # what it has not read
            self._requests.close()


_NOT_YET = object()


def _write(pipe: IO[bytes], message: tuple[Any, ...]) -> None:
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Return the next message, None at the end of the pipe."""
    try:
        return pickle.load(pipe)
    except (EOFError, pickle.UnpicklingError):  # the end, maybe in the middle of a message
        return None


# --- the child -----------------------------------------------------------------------------------


def main() -> None:
    """Serve one port until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the parent, which then closes us
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    port = SounddevicePort(sys.argv[1], timeout_s=float(sys.argv[2]))
    requests: SimpleQueue[tuple[str, tuple[Any, ...]] | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(port, requests), daemon=True).start()
    while (request := requests.get()) is not None:
        with suppress(BrokenPipeError):  # the input ends then, too
            _write(answers, _answer(port, *request))
    with suppress(PortError):
        port.stop()
    os._exit(0)  # the library's own end may not end


def _answer(port: SounddevicePort, call: str, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    try:
        return None, getattr(port, call)(*arguments)
    except PortError as error:
        return type(error).__name__, str(error)


def _listen(port: SounddevicePort, requests: SimpleQueue[Any]) -> None:
    """Read requests; an abort, and the end of the input, act at once."""
    while (request := _receive(sys.stdin.buffer)) is not None:
        if request[0] == "abort":
            port.abort()
        else:
            requests.put(request)
    port.abort()
    requests.put(None)
    time.sleep(_ANSWER_S)  # to fade
    os._exit(1)  # a call into the library did not return


if __name__ == "__main__":
    main()

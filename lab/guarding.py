"""The driving process's end of its bench's guard (`lab.guard`): started, fed, heard, dismissed."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lab.bench_config import BenchConfig
from lab.errors import NotPermitted
from lab.guard import BEAT, DISMISSED, READY, TRIP, Order, guarded_instruments
from lab.permits import Listener, Withdrawal

STARTS_WITHIN_S = 30.0
ENDS_WITHIN_S = 5.0
BEATS = 8  # in a watchdog's time


def default_log() -> Path:
    """Return where guards report, unless they are told otherwise."""
    return Path(tempfile.gettempdir()) / "pnnlab-guard.log"


class BenchGuard:
    """A guard process and the heartbeat that feeds it; a `lab.permits.Permit`.

    Its own view of the silence is stricter than the guard's: whoever asks `check` after this
    process stood still hears that the guard may have acted, and drives no further. Use `with`;
    without a `dismiss` before its end the guard makes the bench safe.
    """

    def __init__(
        self,
        bench: BenchConfig,
        log: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Guard the instruments of `bench` that are not simulated in memory; `start` starts."""
        self._order = Order(bench, os.getpid(), bench.watchdog_s, log or default_log())
        self._watchdog_s = bench.watchdog_s
        self._clock = clock
        self._withdrawal = Withdrawal()
        self._process: subprocess.Popen[str] | None = None
        self._failure = ""
        self._beating = threading.RLock()  # listeners may ask `check`
        self._beat_s = 0.0
        self._pulse_s: float | None = None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="guard-heart", daemon=True)

    # --- life -------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the guard process and feed it; `await_ready` tells whether that went well.

        So that instruments are opened, and made safe by their close, even where it cannot start.
        """
        # what can be imported here, drivers of one's own too, and nothing else
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lab.guard"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # else whoever reads this process's would wait for both
                text=True,
                start_new_session=True,  # signals of the terminal are not for it
                env=environment,
            )
        except OSError as error:  # no memory, no more processes
            self._failure = f": {error}"
            return
        with self._beating:
            self._process = process
            self._try_to_write(self._order.as_line())
            self._beat_s = self._clock()
        if not self._heart.is_alive():  # from now on: instruments that open may take their time
            self._heart.start()

    def await_ready(self) -> None:
        """Wait until the guard watches; raise NotPermitted if it does not start."""
        process = self._process
        if process is None:
            raise NotPermitted(f"the guard of {self._name} did not start{self._failure}")
        too_long = threading.Timer(STARTS_WITHIN_S, process.kill)
        too_long.start()
        answer = "" if process.stdout is None else process.stdout.readline()
        too_long.cancel()
        if answer.strip() != READY:
            self._process = None
            self._end(process)
            raise NotPermitted(f"the guard of {self._name} did not start")
        threading.Thread(target=self._hear, args=(process,), daemon=True).start()

    def dismiss(self) -> None:
        """Let the guard end without acting: every instrument is safe; idempotent."""
        self._leave(DISMISSED)

    def call(self, reason: str) -> None:
        """Have the guard make the bench safe now; it ends then. Nothing once it is dismissed."""
        self._withdrawal.withdraw(f"the guard of {self._name} has made it safe: {reason}")
        self._leave(TRIP + " ".join(reason.split()))

    def _leave(self, word: str) -> None:
        self._ended.set()
        with self._beating:
            self._try_to_write(word)
            process, self._process = self._process, None
        if process is None:
            return
        if word == DISMISSED:
            self._end(process)
        else:  # it may need longer than anybody here should wait
            threading.Thread(target=_reap, args=(process,), daemon=True).start()
        if self._heart.is_alive() and threading.current_thread() is not self._heart:
            self._heart.join()

    def _end(self, process: subprocess.Popen[str]) -> None:
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
        _reap(process)

    # --- Permit -----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise NotPermitted if the guard has, or may have, made the bench safe."""
        with self._beating:
            self._notice_silence()
        self._withdrawal.check()

    def rearm(self) -> None:
        """Start another guard if this one has acted or ended; raise NotPermitted if it fails."""
        try:
            self.check()
        except NotPermitted:
            if self._ended.is_set():
                raise
            with self._beating:
                self._try_to_write(DISMISSED)  # where it has not acted
                process, self._process = self._process, None
            if process is not None:
                self._end(process)
            self._pulse_s = None
            self.launch()
            self.await_ready()
            self._withdrawal.lift()

    def listen(self, listener: Listener) -> None:
        """Call `listener` whenever the guard has, or may have, made the bench safe."""
        self._withdrawal.listen(listener)

    # --- heartbeat --------------------------------------------------------------------------

    @property
    def pulse_every_s(self) -> float:
        """Get how often an event loop should show that it lives, s."""
        return self._watchdog_s / BEATS

    def pulse(self) -> None:
        """Show that an event loop lives; from the first call on it has to be shown often."""
        self._pulse_s = self._clock()

    def pulse_ends(self) -> None:
        """Expect no further `pulse`."""
        self._pulse_s = None

    def _beat_on(self) -> None:
        while not self._ended.wait(self._watchdog_s / BEATS):
            self._beat()

    def _beat(self) -> None:
        """Tell the guard that this process lives, unless something here hangs."""
        with self._beating:
            self._notice_silence()
            pulse_s, now = self._pulse_s, self._clock()
            if pulse_s is not None and now - pulse_s > self._watchdog_s:
                reason = f"its event loop has hung for {self._watchdog_s:g} s"
                self._try_to_write(TRIP + reason)
                self._withdraw(reason)
                return
            # also while nothing may be driven: it makes safe what dies then
            self._beat_s = now
            if not self._try_to_write(BEAT) and not self._ended.is_set():
                self._withdraw("it has ended by itself")

    def _notice_silence(self) -> None:
        """Withdraw if the last heartbeat is so old that the guard may have acted."""
        if self._clock() - self._beat_s > self._watchdog_s and not self._ended.is_set():
            self._withdraw(f"this process stood still for more than {self._watchdog_s:g} s")

    def _withdraw(self, reason: str) -> None:
        self._withdrawal.withdraw(f"the guard of {self._name} has made it safe: {reason}")

    def _hear(self, process: subprocess.Popen[str]) -> None:
        """Notice the guard's end; in a thread of its own."""
        if process.stdout is not None:
            process.stdout.read()
        if process is self._process and not self._ended.is_set():
            self._notice_silence()  # which would be why, and the first reason is the one told
            self._withdraw("the guard process has ended")

    def _try_to_write(self, word: str) -> bool:
        try:
            self._write(word)
        except (OSError, ValueError, NotPermitted):  # ended, or its pipe is closed
            return False
        return True

    def _write(self, word: str) -> None:
        pipe = self._running().stdin
        if pipe is not None:
            pipe.write(word + "\n")
            pipe.flush()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise NotPermitted(f"{self._name} has no guard")
        return self._process

    @property
    def _name(self) -> str:
        return self._order.bench.name


def _reap(process: subprocess.Popen[str]) -> None:
    process.wait()
    with suppress(OSError), process:  # bytes that it did not read cannot be flushed
        pass


def launch_guard(bench: BenchConfig, log: Path | None = None) -> BenchGuard | None:
    """Launch the guard of a bench; None where all its instruments live in this process."""
    if not guarded_instruments(bench):
        return None
    guard = BenchGuard(bench, log)
    guard.launch()
    return guard

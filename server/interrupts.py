"""Leave by the same way on SIGTERM and SIGHUP as on Ctrl-C: through every `finally`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP inside the block; main thread only.

    Instruments are then brought to their safe state, and processes stopped that were started.
    """
    numbers = [n for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]
    before = {}
    for name in numbers:
        number = signal.Signals[name]
        # who started us ignoring a signal (nohup) wants it ignored
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)

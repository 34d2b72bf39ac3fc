"""Progress of several runs at once on stderr: bars on a terminal, lines elsewhere."""

import sys
import threading
from typing import Any, Self, TextIO

from tqdm import tqdm

from lab.comparison.plan import Progress

_LINES_PER_RUN = 4


class RunBars:
    """One bar for each run, with its training accuracy and the time left; thread-safe."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`, by default stderr."""
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._bars: dict[str, Any] = {}
        self._fits: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def add(self, run: str) -> None:
        """Show a run that has not begun."""
        with self._lock:
            self._bar(run)

    def show(self, progress: Progress) -> None:
        """Show a step forward."""
        with self._lock:
            if self._stream.isatty():
                self._move(self._bar(progress.run), progress)
            else:
                _print_some(progress, self._stream)

    def _move(self, bar: Any, progress: Progress) -> None:
        if bar.n == 0:
            bar.unpause()  # the time left counts from here, not from the wait in the queue
        if progress.stage == "train":
            bar.set_postfix_str(f"training accuracy {progress.accuracy:.2f}", refresh=False)
            self._end_fits()
        else:
            self._fits.add(progress.run)
        bar.total = progress.total
        bar.update(progress.done - bar.n)

    def _end_fits(self) -> None:
        """Fill the bars of the fits, which report no last step: training begins after them."""
        for run in self._fits:
            bar = self._bars[run]
            bar.update(bar.total - bar.n)
        self._fits.clear()

    def _bar(self, run: str) -> Any:
        if run not in self._bars:
            self._bars[run] = tqdm(
                total=1,
                desc=f"{run:<20}",
                position=len(self._bars),
                file=self._stream,
                disable=not self._stream.isatty(),
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}",
            )
        return self._bars[run]


class CountBar:
    """One bar for many training runs, which move it by their shares; thread-safe."""

    def __init__(self, runs: int, stream: TextIO | None = None) -> None:
        """Count to `runs`."""
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._bar: Any = tqdm(
            total=100 * runs,
            file=self._stream,
            disable=not self._stream.isatty(),
            bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}",
        )
        self._done: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, progress: Progress) -> None:
        """Show a step forward."""
        with self._lock:
            if not self._stream.isatty():
                _print_some(progress, self._stream)
                return
            self._bar.set_description(progress.run, refresh=False)
            if progress.stage == "train":
                before = self._done.get(progress.run, 0)
                now = 100 * progress.done // progress.total
                self._done[progress.run] = now % 100  # the next table has a run of this name again
                self._bar.update(now - before)


def _print_some(progress: Progress, stream: TextIO) -> None:
    """Print a few lines of each run, where a bar would fill a log file."""
    every = max(1, progress.total // _LINES_PER_RUN)
    trained = progress.stage == "train" and progress.done == progress.total
    if progress.done % every == 0 or trained:
        print(_line(progress), file=stream, flush=True)


def _line(progress: Progress) -> str:
    if progress.stage == "fit":
        return f"{progress.run}: step {progress.done} of {progress.total}"
    return (
        f"{progress.run}: step {progress.done} of {progress.total}, "
        f"training accuracy {progress.accuracy:.2f}"
    )

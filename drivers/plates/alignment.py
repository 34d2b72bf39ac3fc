"""Find, by a reference that travels with every row, when a recording hears what was played."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from drivers.plates.audio_port import Frames
from drivers.spec import Array

IN_SYNC = 0.98
"""Least correlation of a whole row: a sample lost more than about 2 % from its ends shows."""
HEARD = 0.5  # less than this in every row: no reference at all
_JITTER = 2  # frames around the last lag, where nearly every row is found
_FOLLOW = 64  # frames around it, where a clock that slips may have moved a row

Lags = NDArray[np.intp]


def make_reference(samples: int) -> Frames:
    """Return a fixed random sequence of +-0.5, (samples,): its own shifts do not resemble it."""
    rng = np.random.Generator(np.random.Philox(key=1948))
    return np.where(rng.random(samples) < 0.5, -0.5, 0.5).astype(np.float32)


class Aligner:
    """Follows the lag between what is played and what is recorded, in frames."""

    def __init__(self, reference: Frames, row_frames: int, longest: int) -> None:
        """Rows start every `row_frames` with `reference`; a lag is at most `longest`."""
        self.lag = 0
        self._reference = reference / np.linalg.norm(reference)
        self._row_frames = row_frames
        self._longest = longest

    def align(self, recorded: Frames, rows: int) -> tuple[Lags, Array]:
        """Return each row's lag and correlation, (rows,) each, in the loopback's (frames,).

        A row that is found nowhere keeps the lag of the one before.
        """
        starts = np.arange(rows) * self._row_frames
        lags, peaks = self._search(recorded, starts, self.lag - _JITTER, self.lag + _JITTER)
        if peaks[0] < IN_SYNC:
            self._find(recorded, starts)
            lags, peaks = self._search(recorded, starts, self.lag - _JITTER, self.lag + _JITTER)
        if (peaks < IN_SYNC).any():
            self._follow(recorded, starts, lags, peaks)
        else:
            self.lag = int(lags[-1])
        return lags, peaks

    def _find(self, recorded: Frames, starts: Lags) -> None:
        """Look for the first row that can be found at any lag."""
        for start in starts:
            lags, peaks = self._search(recorded, start[None], 0, self._longest)
            if peaks[0] >= IN_SYNC:
                self.lag = int(lags[0])
                return

    def _follow(self, recorded: Frames, starts: Lags, lags: Lags, peaks: Array) -> None:
        """Look again, row by row, near the last lag at which a row was found."""
        for row, start in enumerate(starts):
            low, high = max(0, self.lag - _FOLLOW), min(self._longest, self.lag + _FOLLOW)
            found, peak = self._search(recorded, start[None], low, high)
            peaks[row] = peak[0]
            if peak[0] >= IN_SYNC:
                self.lag = int(found[0])
            lags[row] = self.lag

    def _search(self, recorded: Frames, starts: Lags, low: int, high: int) -> tuple[Lags, Array]:
        """Return the best lag in low..high and its correlation, for each of `starts`."""
        length = len(self._reference) + high - low
        where = (starts + low)[:, None] + np.arange(length)
        near = recorded[where.clip(0, len(recorded) - 1)]
        windows = sliding_window_view(near, len(self._reference), axis=1)
        # the power of every window as differences of running sums, in double precision
        sums = np.cumsum(np.pad(near.astype(np.float64) ** 2, ((0, 0), (1, 0))), axis=1)
        power = sums[:, len(self._reference) :] - sums[:, : -len(self._reference)]
        correlation = (windows @ self._reference) / np.sqrt(power + 1e-12)
        best = correlation.argmax(axis=1)
        lags = low + best
        return lags, np.take_along_axis(correlation, best[:, None], 1)[:, 0].astype(np.float64)

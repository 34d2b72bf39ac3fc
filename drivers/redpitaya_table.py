"""The Red Pitaya's waveform tables: rows laid out with their gaps, as text, and found again.

A table is played once per shot and recorded at the same rate. Output 2 carries a mark as long as
each row, which input 2 hears: so where the first row begins is measured in every shot.
"""

import numpy as np
from numpy.typing import NDArray

from drivers.spec import Array

LENGTH = 16_384  # samples of the generator's table and of the recording
LEAD = 16  # samples of 0 V before the first row
SEARCHED = 64  # of the recording's first samples must hold the first mark's edge
CODES = 8192  # of the converters per full scale: 14 bits
MARK = 0.5  # of full scale
_HEARD = round(MARK * CODES / 2)
# Every step of the DAC as the shortest text that stands for it, with the comma that follows.
_WORDS = np.array(
    [f"{code / CODES:.5f}".rstrip("0").rstrip(".").encode() + b"," for code in range(-CODES, CODES)]
    + [b"1,"]
)


class RowTable:
    """Where `rows_at_once` rows of `samples`, each with a gap behind it, lie in a table."""

    def __init__(self, samples: int, gap_samples: int) -> None:
        """Take the lengths, which must leave room for one row."""
        self.samples = samples
        self.row = samples + gap_samples
        self.rows_at_once = (LENGTH - SEARCHED) // self.row

    def lay_out(self, rows: Array) -> Array:
        """Return the table (LENGTH,) of rows (rows, samples), 0 between them."""
        table: Array = np.zeros(LENGTH, dtype=np.float64)
        end = LEAD + len(rows) * self.row
        table[LEAD:end].reshape(len(rows), self.row)[:, : self.samples] = rows
        return table

    def marks(self, rows: int) -> Array:
        """Return the table (LENGTH,) that marks so many rows."""
        return self.lay_out(np.full((rows, self.samples), MARK))

    def cut(self, codes: NDArray[np.int16], first: int, rows: int) -> NDArray[np.int16]:
        """Return the rows (rows, samples) of a recording whose first row begins at `first`."""
        starts = first + self.row * np.arange(rows)
        found: NDArray[np.int16] = codes[starts[:, None] + np.arange(self.samples)]
        return found


def table_text(table: Array) -> str:
    """Return values of -1 to 1 of full scale as the generator takes them, to the DAC's 14 bits.

    Numbers in ASCII with commas: the instrument knows no other format.
    """
    steps = np.rint(table * CODES).astype(np.int64) + CODES
    return _WORDS[steps].tobytes().translate(None, b"\0")[:-1].decode("ascii")


def first_mark(codes: NDArray[np.int16]) -> int | None:
    """Return where the first mark begins in a recording (samples,) of input 2, None if nowhere."""
    edges = mark_edges(codes)
    return int(edges[0]) if len(edges) else None


def mark_edges(codes: NDArray[np.int16]) -> NDArray[np.intp]:
    """Return where marks begin in a recording (samples,) of input 2."""
    high = codes > _HEARD
    return np.flatnonzero(high[1:] & ~high[:-1]) + 1

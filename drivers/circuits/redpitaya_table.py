"""The Red Pitaya's waveform tables: rows laid out with their gaps, as text, and found again.

Values are steps of the converters, -8192 to 8192 for full scale. A table is played once per shot
and recorded at the same rate. Output 2 carries a mark as long as each row, which input 2 hears: so
where the first row begins is measured in every shot.
"""

import numpy as np
from numpy.typing import NDArray

from drivers.spec import Array

Codes = NDArray[np.int16]

LENGTH = 16_384  # samples of the generator's table and of the recording
LEAD = 16  # samples of 0 V before the first row
SEARCHED = 64  # of the recording's first samples must hold the first mark's edge
CODES = 8192  # of the converters per full scale: 14 bits
MARK = CODES // 2
_HEARD = MARK // 2
_ROUNDING = 1e-9  # of a limit that is a step itself, divided by full scale
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

    def lay_out(self, rows: Codes) -> Codes:
        """Return the table (LENGTH,) of rows (rows, samples), 0 between them."""
        table = np.zeros(LENGTH, dtype=np.int16)
        end = LEAD + len(rows) * self.row
        table[LEAD:end].reshape(len(rows), self.row)[:, : self.samples] = rows
        return table

    def marks(self, rows: int) -> Codes:
        """Return the table (LENGTH,) that marks so many rows."""
        return self.lay_out(np.full((rows, self.samples), MARK, dtype=np.int16))

    def cut(self, codes: Codes, first: int, rows: int) -> Codes:
        """Return the rows (rows, samples) of a recording whose first row begins at `first`."""
        starts = first + self.row * np.arange(rows)
        found: Codes = codes[starts[:, None] + np.arange(self.samples)]
        return found


def steps(values: Array, low: float, high: float) -> Codes:
    """Return the nearest steps for values of -1 to 1, none of them beyond low or high."""
    least, most = np.ceil(low * CODES - _ROUNDING), np.floor(high * CODES + _ROUNDING)
    return np.clip(np.rint(values * CODES), least, most).astype(np.int16)


def table_text(table: Codes) -> str:
    """Return a table as the generator takes it: full scale is 1.

    Numbers in ASCII with commas: the instrument knows no other format.
    """
    words: bytes = _WORDS[table.astype(np.int64) + CODES].tobytes()
    return words.translate(None, b"\0")[:-1].decode("ascii")


def first_mark(codes: Codes) -> int | None:
    """Return where the first mark begins in a recording (samples,) of input 2, None if nowhere."""
    edges = mark_edges(codes)
    return int(edges[0]) if len(edges) else None


def mark_edges(codes: Codes) -> NDArray[np.intp]:
    """Return where marks begin in a recording (samples,) of input 2."""
    high = codes > _HEARD
    return np.flatnonzero(high[1:] & ~high[:-1]) + 1

"""The WaveShaper's profile text (WSP): one line per 1 GHz step, tab-separated.

    frequency <tab> attenuation <tab> phase <tab> port <newline>    THz, dB, rad: "%.4f"; port: "%d"

A profile has a thousand lines and one is sent per measured row, so both directions work on whole
columns. Both agree exactly with Python's own `%.4f` and `float`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.spec import Array

_LIMIT = 10_000_000  # ten-thousandths: three digits before the point
_WHOLE = np.array([b"%d." % i for i in range(1000)], dtype="S4")
_FRACTION = np.array([b"%04d" % i for i in range(10_000)], dtype="S4")
_NUMBER = [("sign", "S1"), ("whole", "S4"), ("fraction", "S4")]
# Eight characters "ddd.dddd" as one little-endian word, the first character in its lowest byte.
_ZEROS = int.from_bytes(b"0" * 8, "little")  # xor makes ASCII digits 0 to 9
_POINT_AT = 0xFF << 24
_POINT = (ord(".") ^ ord("0")) << 24
_KEEP = np.array(  # by the number of digits before the point
    [0, 0xFFFFFFFF00FF0000, 0xFFFFFFFF00FFFF00, 0xFFFFFFFF00FFFFFF], dtype=np.uint64
)


@dataclass(frozen=True)
class Profile:
    """One filter profile: frequencies (lines,) THz, attenuation dB, phase rad, port number.

    Port 0 blocks a line.
    """

    frequencies_thz: Array
    attenuation_db: Array
    phase_rad: Array
    port: NDArray[np.int64]


class ProfileFormat:
    """Write profiles on one fixed frequency grid, for one port.

    `separators` stand between the columns and at the end of a line: tab and newline in a file,
    their two-character escapes inside a JSON string.
    """

    def __init__(
        self,
        frequencies_thz: Array,
        port: int,
        separators: tuple[bytes, bytes] = (b"\t", b"\n"),
    ) -> None:
        """Take frequencies (lines,), THz, and the port of every line."""
        between, end = separators
        head = [b"%.4f%s" % (f, between) for f in np.asarray(frequencies_thz).tolist()]
        tail = b"%s%d%s" % (between, port, end)
        width = max(map(len, head), default=1)
        layout: list[tuple[str, object]] = [
            ("head", f"S{width}"),
            ("attenuation", _NUMBER),
            ("between", f"S{len(between)}"),
            ("phase", _NUMBER),
            ("tail", f"S{len(tail)}"),
        ]
        self._layout = np.dtype(layout)
        lines = np.zeros(len(head), dtype=self._layout)
        lines["head"] = head
        lines["between"] = between
        lines["tail"] = tail
        self._blank = lines.tobytes()

    def format(self, attenuation_db: Array, phase_rad: Array) -> bytes:
        """Return the text of a profile, (lines,) dB and rad, magnitudes below 1000.

        Raises ValueError for values that are not finite or too large for the format.
        """
        buffer = bytearray(self._blank)
        lines = np.frombuffer(buffer, dtype=self._layout)
        _write_numbers(lines["attenuation"], attenuation_db)
        _write_numbers(lines["phase"], phase_rad)
        return bytes(buffer.translate(None, b"\0"))


def as_written(values: Array) -> Array:
    """Return what a reader gets of each value: rounded to four decimals, any shape.

    Raises ValueError for values that are not finite or too large for the format.
    """
    # as `_parse_numbers` divides, so that the numbers are the same bit for bit
    return np.copysign(_ten_thousandths(values) / 1e4, values)


def _ten_thousandths(values: Array) -> NDArray[np.int64]:
    """Return the digits of `%.4f` of each magnitude as one integer."""
    magnitude = np.abs(values)
    scaled = magnitude * 1e4
    if not (scaled < _LIMIT - 0.5).all():
        raise ValueError("a profile holds finite numbers below 1000 only")
    floor = np.floor(scaled)
    digits = np.rint(scaled).astype(np.int64)
    # The product is rounded, but rounding is monotonic: it can hide on which side of a tie the
    # exact value lies only by landing on the tie itself.
    for i in np.flatnonzero(scaled - floor == 0.5):
        digits.flat[i] = int(f"{magnitude.flat[i]:.4f}".replace(".", ""))
    return digits


def _write_numbers(fields: NDArray[np.void], values: Array) -> None:
    """Put `%.4f` of each value into the sign, whole and fraction columns, NUL where empty."""
    whole, fraction = np.divmod(_ten_thousandths(values), 10_000)
    fields["sign"] = np.where(np.signbit(values), b"-", b"")
    fields["whole"] = _WHOLE[whole]
    fields["fraction"] = _FRACTION[fraction]


def parse_profile(text: str | bytes) -> Profile:
    """Read a profile; raise ValueError that names the line for anything else."""
    data = text if isinstance(text, bytes) else text.encode("ascii")
    profile = ProfileReader().read(data)
    return _parse_lines(data) if profile is None else profile


class ProfileReader:
    """Read profiles one after another, as `ProfileFormat` writes them.

    `separators`, one or two characters each, as there. Frequencies that are the last profile's,
    character by character, are not read again: the profile then has the same array object.
    """

    def __init__(self, separators: tuple[bytes, bytes] = (b"\t", b"\n")) -> None:
        between, end = separators
        self._width = len(between)
        self._first = sorted({between[0], end[0]})
        codes = [int.from_bytes(s, "little") for s in (between, between, between, end)]
        self._separators = np.array(codes)[:, None]
        self._grid_words = np.zeros(0, dtype=np.uint64)
        self._grid = np.zeros(0)

    def read(self, data: bytes) -> Profile | None:
        """Read text that has exactly four decimals everywhere; None if this text has not."""
        padded = np.frombuffer(b"\0" * 8 + data, dtype=np.uint8)
        ends = self._field_ends(padded)
        if ends is None:
            return None
        starts = np.empty_like(ends)
        starts[1:] = ends[:-1] + self._width
        starts[0, 1:] = ends[3, :-1] + self._width
        starts[0, 0] = 8
        lengths = ends - starts
        port = padded[starts[3]] - np.uint8(ord("0"))  # above 9 for what comes before "0", too
        if np.count_nonzero((port > 9) | (lengths[3] != 1)):
            return None
        frequencies = self._read_grid(padded, ends[0], lengths[0])
        numbers = _parse_numbers(padded, ends[1:3].ravel(), lengths[1:3].ravel())
        if frequencies is None or numbers is None:
            return None
        attenuation, phase = numbers.reshape(2, -1)
        return Profile(frequencies, attenuation, phase, port.astype(np.int64))

    def _field_ends(self, padded: NDArray[np.uint8]) -> NDArray[np.intp] | None:
        """Return where each field stops, (4, lines); None if the separators are not in order."""
        mark = padded == self._first[0]
        for other in self._first[1:]:
            mark |= padded == other
        ends = np.flatnonzero(mark)
        if len(ends) == 0 or len(ends) % 4 or ends[-1] != len(padded) - self._width:
            return None
        ends = np.ascontiguousarray(ends.reshape(-1, 4).T)
        if np.count_nonzero(_words(padded, ends, self._width) != self._separators):
            return None
        return ends

    def _read_grid(
        self, padded: NDArray[np.uint8], ends: NDArray[np.intp], lengths: NDArray[np.intp]
    ) -> Array | None:
        """Read the frequencies (lines,); None if one is not `[-]d{1,3}.dddd`."""
        words = _words(padded, ends - 8, 8)
        same_length = not np.count_nonzero(lengths != 8)  # then a word is all of its frequency
        if same_length and np.array_equal(words, self._grid_words):
            return self._grid
        frequencies = _parse_numbers(padded, ends, lengths)
        if frequencies is not None and same_length:
            self._grid_words, self._grid = words, frequencies
        return frequencies


def _words(padded: NDArray[np.uint8], at: NDArray[np.intp], size: int) -> NDArray[Any]:
    """Return the `size` characters from each place on as one little-endian word each."""
    every = np.ndarray(len(padded) - size + 1, f"<u{size}", padded, strides=(1,))
    return np.asarray(every[at])


def _parse_numbers(
    padded: NDArray[np.uint8], ends: NDArray[np.intp], lengths: NDArray[np.intp]
) -> Array | None:
    """Read the numbers that stop before `ends`; None if one is not `[-]d{1,3}.dddd`."""
    negative = padded[ends - lengths] == ord("-")
    whole_digits = lengths - negative - 5
    if np.count_nonzero((whole_digits < 1) | (whole_digits > 3)):
        return None
    words = _words(padded, ends - 8, 8) ^ _ZEROS
    if np.count_nonzero((words & _POINT_AT) != _POINT):
        return None
    words &= _KEEP[whole_digits]
    if np.count_nonzero(words.view(np.uint8) > 9):
        return None
    words = (words * 10 + (words >> 8)) & 0x00FF00FF00FF00FF  # digits to pairs
    words = (words * 100 + (words >> 16)) & 0x0000FFFF0000FFFF  # to "ddd0" and "dddd"
    scaled = (words & 0xFFFFFFFF) * 1000 + (words >> 32)
    values: Array = scaled / 1e4  # an exact integer, so one correct rounding
    return np.where(negative, -values, values)


def _parse_lines(data: bytes) -> Profile:
    """Read any legal spelling of the numbers, line by line."""
    rows: list[Sequence[float]] = []
    for number, line in enumerate(data.decode("ascii").splitlines(), start=1):
        fields = line.split("\t")
        try:
            frequency, attenuation, phase = map(float, fields[:3])
            (port,) = map(int, fields[3:])
        except ValueError as error:
            raise ValueError(f"line {number}: {line[:80]!r} is not a profile line") from error
        rows.append((frequency, attenuation, phase, port))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T.copy()
    return Profile(columns[0], columns[1], columns[2], columns[3].astype(np.int64))

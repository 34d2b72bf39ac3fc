"""The vowel task of the physical-neural-network paper: seven vowels, women, twelve formants.

And, from the same file, a larger one: all twelve vowels of men, women, boys and girls.

Data: J. Hillenbrand, L. Getty, M. Clark, K. Wheeler, "Acoustic characteristics of American
English vowels", JASA 97, 3099 (1995). Task: L. G. Wright et al., Nature 601, 549 (2022).
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.datasets.base import Dataset
from lab.datasets.files import DataFile, read_file
from lab.errors import DataError

FILE = DataFile(
    path="hillenbrand/vowdata.dat",
    base_url="https://raw.githubusercontent.com/kleinschmidt/hdp-bayes-vowels/"
    "0787a1ab4007217f0ad2a756e0d1c4385f676fd2/hillenbrand-data",
    size=136_111,
    sha256="05a4a69e2c6b0f444077245b1427d12bc86f8d7a32ae7a4b63f7e06e5712e4b1",
)
SOURCE = "Hillenbrand et al., JASA 97, 3099 (1995)"

VOWELS = ("ae", "ah", "aw", "uw", "er", "iy", "ih")
# "er" has 37 complete rows; of each other vowel the paper's authors drew 37 at random. Their
# draw, found by matching each row of their published file: these talkers' rows are not in it.
NOT_DRAWN = {
    "ae": (4, 11, 22, 26, 28, 33, 37, 40, 44, 47),
    "ah": (4, 6, 8, 12, 21, 26, 27, 32, 40, 48),
    "aw": (5, 9, 12, 24, 26, 27, 30, 33, 50),
    "uw": (2, 3, 4, 8, 11, 25, 29, 35, 36, 46, 50),
    "er": (),
    "iy": (20, 26, 29, 31, 44, 45),
    "ih": (8, 12, 13, 16, 29, 35, 38, 39, 41, 46, 49),
}

ALL_VOWELS = ("ae", "ah", "aw", "eh", "er", "ei", "ih", "iy", "oa", "oo", "uh", "uw")
TALKER_GROUPS = "mwbg"  # men, women, boys, girls

COLUMNS = 16
# F1, F2, F3 at steady state, then at 20, 50 and 80 % of the vowel: columns 4-6 and 8-16 of the
# file, counted from 1 and with the row's name as column 1.
FORMANTS = [column - 2 for column in (4, 5, 6, *range(8, 17))]
ROW_NAME = re.compile(rf"[{TALKER_GROUPS}](\d\d)({'|'.join(ALL_VOWELS)})")


def load_vowels(
    folder: Path | str | None = None,
    base_url: str | None = None,
    cache: Path | str | None = None,
) -> Dataset:
    """Return the task's 259 rows of 12 features; see `lab.datasets.files.read_file`.

    Raises DataError where the file is missing, truncated, altered or cannot be downloaded.
    """
    return parse_vowels(read_file(FILE, folder, base_url, cache).decode("ascii"))


def parse_vowels(text: str) -> Dataset:
    """Return the task's rows of a table in the format of `vowdata.dat`, in the file's order.

    Kept are women's rows of the seven vowels with all twelve formants measurable (a zero means
    "not measurable") and in the authors' draw. Each feature is divided by its maximum over the
    kept rows, test rows included, as the authors did: a scale of the apparatus, not a fit.

    Raises DataError that names the line that cannot be read.
    """
    names, numbers = _read_table(text)
    formants = numbers[:, FORMANTS]
    kept = [i for i, name in enumerate(names) if _in_task(name) and formants[i].all()]
    if not kept:
        raise DataError("vowels: no complete row of a woman saying one of the task's vowels")
    features = formants[kept] / formants[kept].max(axis=0)
    labels = np.array([VOWELS.index(names[i][3:]) for i in kept])
    talkers = np.array([int(names[i][1:3]) for i in kept])
    return Dataset("vowels", features, labels, VOWELS, talkers, SOURCE)


def load_vowels12(
    folder: Path | str | None = None,
    base_url: str | None = None,
    cache: Path | str | None = None,
) -> Dataset:
    """Return all complete rows of all talkers, 12 features; files and errors as `load_vowels`."""
    return parse_vowels12(read_file(FILE, folder, base_url, cache).decode("ascii"))


def parse_vowels12(text: str) -> Dataset:
    """Return every row of a table in the format of `vowdata.dat` that has all twelve formants.

    All twelve vowels and all talkers, in the file's order; features and errors as for
    `parse_vowels`. A talker's group is 100 times the place of its letter among m, w, b, g, plus
    its number: 0 to 99 are men, 100 to 199 women, 200 to 299 boys, 300 to 399 girls.
    """
    names, numbers = _read_table(text)
    formants = numbers[:, FORMANTS]
    kept = [i for i in range(len(names)) if formants[i].all()]
    if not kept:
        raise DataError("vowels: no complete row")
    features = formants[kept] / formants[kept].max(axis=0)
    labels = np.array([ALL_VOWELS.index(names[i][3:]) for i in kept])
    talkers = np.array([100 * TALKER_GROUPS.index(names[i][0]) + int(names[i][1:3]) for i in kept])
    return Dataset("vowels12", features, labels, ALL_VOWELS, talkers, SOURCE)


def _in_task(name: str) -> bool:
    talker, vowel = int(name[1:3]), name[3:]
    return name[0] == "w" and vowel in VOWELS and talker not in NOT_DRAWN[vowel]


def _read_table(text: str) -> tuple[list[str], NDArray[np.float64]]:
    """Return the names of all rows and their 15 numbers, (rows, 15)."""
    lines = text.splitlines()
    header = [str(column) for column in range(1, COLUMNS + 1)]
    first = next((i + 1 for i, line in enumerate(lines) if line.split() == header), None)
    if first is None:
        raise DataError("vowels: no line with the column numbers 1 to 16 above the rows")
    rows = [_read_row(line, i + 1) for i, line in enumerate(lines) if i >= first and line.strip()]
    numbers = np.array([row for _, row in rows], dtype=np.float64)
    return [name for name, _ in rows], numbers.reshape(-1, COLUMNS - 1)


def _read_row(line: str, line_number: int) -> tuple[str, list[float]]:
    name, *fields = line.split()
    if not ROW_NAME.fullmatch(name):
        raise DataError(f"vowels: line {line_number}: '{name}' is not talker and vowel")
    if len(fields) != COLUMNS - 1 or not all(field.isdecimal() for field in fields):
        raise DataError(
            f"vowels: line {line_number}: not {COLUMNS - 1} whole numbers after the name"
        )
    return name, [float(field) for field in fields]

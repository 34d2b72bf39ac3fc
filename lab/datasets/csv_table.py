"""Read a CSV table with a header line into arrays."""

import csv
import io
import re
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.datasets.arrays import MOST_VALUES, Arrays
from lab.errors import DataError

_TRUTH = {"0": False, "1": True, "false": False, "true": True}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def from_csv(content: bytes, where: str) -> Arrays:
    """Return the arrays of CSV text; raise DataError that names the line and the reason."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: neither npz nor UTF-8 text ({error.reason})") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table = _Table(where)
    try:
        for fields in reader:
            if fields:  # not a blank line
                table.add(fields, reader.line_num)
    except csv.Error as error:
        raise DataError(f"{where}: line {reader.line_num}: {error}") from error
    return table.arrays()


class _Table:
    """The lines of a CSV file, the header first."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.header: list[str] = []
        self.features: list[str] = []
        self.numbers = array("d")
        self.texts: dict[str, list[str]] = {"label": [], "group": [], "test": []}
        self.places: dict[str, int] = {}  # of the columns of texts, the last first
        self.rows = 0

    def add(self, fields: list[str], line: int) -> None:
        where = f"{self.where}: line {line}"
        if not self.header:
            self._add_header([field.strip() for field in fields], where)
            return
        if len(fields) != len(self.header):
            raise DataError(f"{where}: {len(fields)} fields, the header has {len(self.header)}")
        self.rows += 1
        if self.rows * len(self.features) > MOST_VALUES:
            raise DataError(f"{where}: more than {MOST_VALUES:,} values")
        for name, place in self.places.items():
            self.texts[name].append(fields.pop(place).strip())
        self.numbers.extend(_numbers(fields, self.features, where))

    def _add_header(self, names: list[str], where: str) -> None:
        if "label" not in names:
            raise DataError(f"{where}: no header with a column 'label'")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            raise DataError(f"{where}: column '{(twice or [''])[0]}' has no name of its own")
        for name in sorted({"labels", "groups", "features"} & set(names)):
            raise DataError(
                f"{where}: column '{name}': the special columns are label, group and test; give a "
                "feature another name"
            )
        self.header = names
        places = {name: place for place, name in enumerate(names) if name in self.texts}
        self.places = dict(reversed(places.items()))
        self.features = [name for name in names if name not in self.texts]
        if not self.features:
            raise DataError(f"{where}: no column of features beside {', '.join(names)}")

    def arrays(self) -> Arrays:
        if not self.rows:
            raise DataError(f"{self.where}: no rows below a header")
        features = np.array(self.numbers).reshape(self.rows, len(self.features))
        test = None
        if "test" in self.header:
            test = np.array([self._truth(i, text) for i, text in enumerate(self.texts["test"])])
        return Arrays(
            features=features,
            labels=_whole_or_text(self.texts["label"]),
            groups=_whole_or_text(self.texts["group"]) if "group" in self.header else None,
            test=test,
            columns=[f"column '{name}'" for name in self.features],
        )

    def _truth(self, row: int, text: str) -> bool:
        if text.lower() not in _TRUTH:
            raise DataError(
                f"{self.where}: row {row + 1}, column 'test': '{text}' is none of 0, 1, false, true"
            )
        return _TRUTH[text.lower()]


def _numbers(fields: list[str], columns: list[str], where: str) -> list[float]:
    try:
        if any("_" in field for field in fields):  # Python's own notation, nobody else's
            raise ValueError("an underscore")
        return [float(field) for field in fields]
    except ValueError:
        wrong = next(i for i, field in enumerate(fields) if not _is_number(field))
        raise DataError(
            f"{where}, column '{columns[wrong]}': '{fields[wrong]}' is no number"
        ) from None


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field


def _whole_or_text(texts: list[str]) -> NDArray[Any]:
    """Return whole numbers if all are written as such, each in one way; else the texts."""
    if all(_WHOLE.fullmatch(text) and str(int(text)) == text for text in texts):
        return np.array([int(text) for text in texts], dtype=np.int64)
    return np.array(texts, dtype=np.str_)

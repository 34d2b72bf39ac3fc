"""Which command a SCPI header stands for: short and long forms, optional nodes, numbers in it.

After SCPI-1999 volume 1 chapter 6.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

T = TypeVar("T")

_NODE = re.compile(r"(\[)?:?([A-Za-z0-9]+#?)\]?")
_NUMBER = re.compile(r"(?<=[A-Z_])(?:#|\d+)(?=[:?]|\Z)")
_DIGITS_AT_MOST = 9
_REMEMBERED = 256


def spellings(header: str) -> Iterator[str]:
    """Yield every accepted form of a header such as `:INITiate[:IMMediate]`, in capitals.

    Nodes end in `#` where a number may follow.
    """
    query = "?" if header.endswith("?") else ""
    forms = [""]
    for optional, node in _NODE.findall(header.rstrip("?")):
        short = "".join(c for c in node if not c.islower())
        longer = [f"{f}:{n}" for f in forms for n in {short, node.upper()}]
        forms = longer + (forms if optional else [])
    return (form[1:] + query for form in forms)


@dataclass(frozen=True)
class _Entry(Generic[T]):
    """One spelling of a command: which numbers it must have, or None for any (default 1)."""

    value: T
    required: tuple[int | None, ...]
    left_out: tuple[bool, ...]  # per `#` of the header


class HeaderTable(Generic[T]):
    """Values by header: short and long forms, optional nodes, numeric suffixes (`SOUR#:FUNC`)."""

    def __init__(self, commands: Mapping[str, T]) -> None:
        """Take the values by header as the manual prints it; the first of two equal ones wins."""
        self._entries = dict[str, list[_Entry[T]]]()
        for header, value in sorted(commands.items(), key=lambda item: item[0].count("#")):
            for form in [header] if header.startswith("*") else spellings(header):
                self._add(form, value)
        self.find = lru_cache(_REMEMBERED)(self._look_up)
        """Return what a header in capitals stands for and its numbers, or None."""

    def _add(self, form: str, value: T) -> None:
        first, *others = form.split("#")
        for left_out in itertools.product((False, True), repeat=len(others)):
            pieces = zip(left_out, others, strict=True)
            spelled = first + "".join(("" if out else "#") + piece for out, piece in pieces)
            required = tuple(None if n == "#" else int(n) for n in _NUMBER.findall(spelled))
            entry = _Entry(value, required, left_out)
            self._entries.setdefault(_NUMBER.sub("#", spelled), []).append(entry)

    def override(self, header: str, value: T) -> None:
        """Let a header that is spelled in capitals stand for `value` from now on."""
        numbers = tuple(map(int, _NUMBER.findall(header)))
        self._entries.setdefault(_NUMBER.sub("#", header), []).insert(0, _Entry(value, numbers, ()))
        self.find.cache_clear()

    def _look_up(self, header: str) -> tuple[T, tuple[int, ...]] | None:
        numbers = [int(n[:_DIGITS_AT_MOST]) for n in _NUMBER.findall(header)]
        for entry in self._entries.get(_NUMBER.sub("#", header), ()):
            pairs = list(zip(entry.required, numbers, strict=True))
            if all(wanted in (None, n) for wanted, n in pairs):
                free = iter([n for wanted, n in pairs if wanted is None])
                return entry.value, tuple(1 if out else next(free) for out in entry.left_out)
        return None

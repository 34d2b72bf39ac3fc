"""The grammar of SCPI messages: where one ends, its commands, their headers and parameters.

After IEEE 488.2 chapter 7 and SCPI-1999 volume 1 chapter 6. Pure text processing: which command a
header stands for is `scpi_headers`', what it does is `drivers.mock.firmware.scpi`'s. Bytes become
text by Latin-1, which keeps every byte.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from drivers.mock.firmware.scpi_status import ScpiError

LONGEST_MESSAGE = 2**24
_LEGAL_HEADER = re.compile(rb"\*?:?[A-Za-z][A-Za-z0-9_:]*\??\Z")
_MARK = re.compile(rb"[\n#\"']")
_SPECIAL = re.compile(rb"[#\"']")
_SPACE = re.compile(rb"[^!-~]")
_STOPS = {stop: re.compile(rb"[#\"'" + stop + rb"]") for stop in (b";", b",")}
_BLOCK = re.compile(rb"#([1-9])")
_REPEATED_AT_MOST = 80  # bytes: longer messages carry data, which does not come again
_REMEMBERED = 256


# --- messages ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """One command of a message: its header from the root on, in capitals, and its parameters.

    A block's parameter is its content. `error` says what is wrong with the unit.
    """

    header: str
    parameters: list[str]
    error: ScpiError | None = None


def parse(message: bytes) -> Sequence[Unit]:
    """Split a message without its terminator at `;` into its commands, not in strings or blocks."""
    return _parse_known(message) if len(message) <= _REPEATED_AT_MOST else _parse(message)


def _parse(message: bytes) -> Sequence[Unit]:
    units, at, level = list[Unit](), 0, ""
    while at < len(message):
        end = _end_of(message, at, b";")
        text = message[at:end].lstrip()
        if text:
            units.append(_unit(text, level))
            level = _level_after(units[-1].header, level)
        at = end + 1
    return units


_parse_known = lru_cache(_REMEMBERED)(_parse)  # the same few commands come row by row


def _level_after(header: str, level: str) -> str:
    """Return where a header that begins without a colon goes on: beside the one before."""
    return level if not header or header.startswith("*") else header[: header.rfind(":") + 1]


def _unit(text: bytes, level: str) -> Unit:
    header, *rest = text.split(None, 1)
    if _LEGAL_HEADER.match(header) is None:
        return Unit("", [], ScpiError(-102, "Syntax error"))
    name = header.upper().decode("ascii")
    if not name.startswith("*"):
        name = name[1:] if name.startswith(":") else level + name
    try:
        return Unit(name, _parameters(rest[0]) if rest else [])
    except ScpiError as error:
        return Unit(name, [], error)


def _parameters(text: bytes) -> list[str]:
    if _SPECIAL.search(text) is None:  # long lists of numbers are plain
        listed = text.decode("latin-1").split(",")
        return listed if _SPACE.search(text) is None else [p.strip() for p in listed]
    found, at = list[str](), 0
    while at <= len(text):
        end = _end_of(text, at, b",")
        found.append(_content(text[at:end].lstrip()).decode("latin-1"))
        at = end + 1
    return found


def _content(parameter: bytes) -> bytes:
    """Return a block's content, and any other parameter as it is, without spaces around it."""
    if not parameter.startswith(b"#"):
        return parameter.rstrip()
    if parameter.startswith(b"#0"):
        return parameter[2:]
    span = _span(parameter, 0)
    if span is None or span[1] > len(parameter) or parameter[span[1] :].strip():
        raise ScpiError(-161, "Invalid block data")
    return parameter[slice(*span)]


def _end_of(text: bytes, at: int, stop: bytes) -> int:
    """Return where the unit or parameter that begins at `at` ends, blocks and strings skipped."""
    place = at
    while (match := _STOPS[stop].search(text, place)) is not None:
        place = match.end()
        found = match[0]
        if found == stop:
            return match.start()
        if found == b"#":
            if _begins_parameter(text, match.start()):
                place = _skip_block(text, match.start())
        else:
            closing = text.find(found, place)
            place = len(text) if closing < 0 else closing + 1
    return len(text)


def _begins_parameter(text: bytes | bytearray, at: int) -> bool:
    return at == 0 or text[at - 1] in b" \t,"


def _skip_block(text: bytes, at: int) -> int:
    if text[at : at + 2] == b"#0":
        return len(text)
    span = _span(text, at)
    return at + 1 if span is None else min(span[1], len(text))


def _span(text: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Return where the block that begins at `at` has its content; None if it is no block."""
    head = _BLOCK.match(text, at)
    if head is None:
        return None
    start = at + 2 + int(head[1])
    digits = text[at + 2 : start]
    if len(digits) != int(head[1]) or not digits.isdigit():
        return None
    return start, start + int(digits)


# --- the byte stream --------------------------------------------------------------------------


class MessageBuffer:
    """Cut a byte stream into messages at its terminator, which does not count inside a block.

    A carriage return before a terminator that is a line feed is dropped. A message longer than
    LONGEST_MESSAGE is given up: `overrun` is called, the bytes to the next terminator are lost.
    """

    def __init__(self, terminator: bytes, overrun: Callable[[], object]) -> None:
        """Take the terminator: a line feed, or carriage return and line feed."""
        self._terminator = terminator
        self._overrun = overrun
        self._data = bytearray()
        self._skipping = False
        self._forget()

    def _forget(self) -> None:
        """Start on a new message."""
        self._seen = 0
        self._block_end = 0
        self._quote = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that these bytes complete, without their terminators."""
        if not self._data and self._is_plain_line(data):  # as nearly always
            yield data[: -len(self._terminator)].removesuffix(b"\r")
            return
        self._data += data
        while (end := self._next_end()) is not None:
            message = bytes(self._data[: end - len(self._terminator)])
            if len(message) > self._block_end:
                message = message.removesuffix(b"\r")
            del self._data[:end]
            self._forget()
            if not self._skipping:
                yield message
            self._skipping = False
        if len(self._data) > LONGEST_MESSAGE:
            if not self._skipping:
                self._overrun()
            self._skipping = True
            del self._data[: -len(self._terminator)]
            self._forget()

    def _is_plain_line(self, data: bytes) -> bool:
        """Say whether this is one whole message, without strings and blocks."""
        mark = _MARK.search(data)
        return mark is not None and mark.end() == len(data) and data.endswith(self._terminator)

    def _next_end(self) -> int | None:
        """Return the length of the first message with its terminator, None if it is not whole."""
        while (match := _MARK.search(self._data, self._seen)) is not None:
            at, found = match.start(), match[0]
            if found == b"\n":
                self._seen = at + 1
                start = at + 1 - len(self._terminator)
                if start >= self._block_end and self._data[start : at + 1] == self._terminator:
                    return at + 1
                continue
            after = self._after(at, found)
            if after is None:
                self._seen = at
                return None
            self._seen = after
        self._seen = len(self._data)
        return None

    def _after(self, at: int, found: bytes) -> int | None:
        """Return where to look on after a quote or `#`; None if more bytes must come first."""
        if found != b"#":
            if not self._quote:
                self._quote = found
            elif self._quote == found:
                self._quote = b""
            return at + 1
        if self._quote or not _begins_parameter(self._data, at) or at == 0:
            return at + 1
        return self._after_block(at)

    def _after_block(self, at: int) -> int | None:
        head = bytes(self._data[at + 1 : at + 2])
        if not head:
            return None
        if head not in b"123456789":
            return at + 1
        digits = bytes(self._data[at + 2 : at + 2 + int(head)])
        if digits and not digits.isdigit():
            return at + 1
        if len(digits) < int(head):
            return None
        end = at + 2 + int(head) + int(digits)
        if end > LONGEST_MESSAGE:
            return at + 1
        if end > len(self._data):
            return None
        self._block_end = end
        return end

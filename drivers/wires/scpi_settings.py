"""Whether a SCPI instrument has taken what it was sent: its error queue, settings read back."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from drivers.errors import InstrumentRefused
from drivers.wires.scpi import ScpiLink

_NO_ERROR = re.compile(r"\+?0,")
_ERRORS_AT_MOST = 30


def refuse_queued_errors(link: ScpiLink, asked: str, query: str) -> None:
    """Empty the error queue by `query`; raise InstrumentRefused if there was anything in it."""
    errors: list[str] = []
    while len(errors) < _ERRORS_AT_MOST:
        entry = link.ask(query)
        if _NO_ERROR.match(entry):
            break
        errors.append(entry)
    if errors:
        raise InstrumentRefused(link.name, f"{asked}: {'; '.join(errors)}")


def verify(
    link: ScpiLink, named: str, value: Any, read: Callable[[], Any], *, share: float
) -> None:
    """Raise InstrumentRefused unless `read()` returns `value`; of a float, `share` may differ."""
    with understood(link, named):
        actual = read()
        tolerance = share * value if isinstance(value, float) else 0
        same = abs(actual - value) <= tolerance if tolerance else actual == value
    if not same:
        raise InstrumentRefused(link.name, f"{named}: set to {value!r} but is {actual!r}")


@contextmanager
def understood(link: ScpiLink, asked: str) -> Iterator[None]:
    """Turn PyMeasure's failures to read an answer into ProtocolError."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise link.distrust(asked, f"unexpected answer ({error})") from error

"""What the SLM driver needs of a display, and slmsuite's; imports slmsuite when one is opened."""

import importlib
from ast import literal_eval
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl

from drivers.import_path import imported
from drivers.shapers.slm_grating import Levels


class DisplayError(Exception):
    """The display's own software refused; its words."""


class PhaseDisplay(Protocol):
    """A phase-only display; calls may raise OSError (TimeoutError, ...) or DisplayError."""

    def open(self) -> None:
        """Connect anew."""
        ...

    def close(self) -> None:
        """Release the connection; idempotent."""
        ...

    def identity(self) -> str:
        """Return what kind of display answers, and its name."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Get rows and columns."""
        ...

    @property
    def bits(self) -> int:
        """Get the depth of a pixel, bits."""
        ...

    def show(self, levels: Levels) -> None:
        """Display grey levels (rows, columns), uint8 up to 8 bits and uint16 above."""
        ...


class SlmsuiteDisplay:
    """Any SLM class of slmsuite."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Take what makes slmsuite's object, which connects by that."""
        self._make = make
        self._slm: Any = None

    def open(self) -> None:
        """Connect anew; raises OSError or DisplayError."""
        self.close()
        self._slm = self._call(self._make)

    def close(self) -> None:
        """Release the connection; idempotent."""
        slm, self._slm = self._slm, None
        if slm is not None:
            self._call(slm.close)

    def identity(self) -> str:
        """Return slmsuite's class and the display's name."""
        return f"{type(self._slm).__name__} {self._slm.name}"

    @property
    def shape(self) -> tuple[int, int]:
        """Get rows and columns."""
        rows, columns = self._slm.shape
        return int(rows), int(columns)

    @property
    def bits(self) -> int:
        """Get the depth of a pixel, bits."""
        return int(self._slm.bitdepth)

    def show(self, levels: Levels) -> None:
        """Display grey levels as they are; slmsuite neither waits nor corrects."""
        self._call(self._slm.set_phase, levels, settle=False)

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except OSError:
            raise
        except Exception as error:  # each vendor's class has errors of its own
            text = f"{type(error).__name__}: {error}"
            if "closed by peer" in text:  # as slmsuite's remote displays say it
                raise ConnectionError(text) from error
            if "Timeout:" in text:
                raise TimeoutError(text) from error
            raise DisplayError(text) from error


def display_class(place: str) -> Callable[[], Any]:
    """Return what makes the display `module.Class?key=value&...`; numbers and tuples as Python.

    Raises ValueError if it cannot be imported, ImportError where slmsuite itself is missing.
    """
    if place.startswith("slmsuite."):
        importlib.import_module("slmsuite")
    path, _, query = place.partition("?")
    module, _, name = path.rpartition(".")
    maker = imported(f"{module}:{name}")
    options = {key: _value(text) for key, text in parse_qsl(query, strict_parsing=bool(query))}
    return lambda: maker(**options)


def remote_display(host: str, port: int, name: str, timeout_s: float) -> Callable[[], Any]:
    """Return what makes slmsuite's client of a display on another computer; raises ImportError."""
    from slmsuite.hardware.slms.remote import RemoteSLM

    return lambda: RemoteSLM(name, host=host, port=port, timeout=timeout_s)


def _value(text: str) -> Any:
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text

"""Any phase-only SLM that slmsuite drives, as a pulse shaper in a 4f line.

The columns of the display are frequency lines, `columns_per_line` each; along the other axis every
line shows a blazed grating, and a slit behind lets its first order pass: `slm_grating`. All
other columns are flat, so that nothing of them passes. What is shown are grey levels; the display's
own table must make them linear in phase, `levels_per_turn` to 2 pi.

Attenuation 0 to 60 dB, from a full blaze; above `floor_db` a line is shown flat: nothing but what
scatters passes. A grey level is a step of phase, so a field is met to within pi / levels_per_turn.
Phase -2 pi to 2 pi rad.
"""

import math
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from drivers.abort import Abort
from drivers.errors import (
    ConnectionLost,
    InstrumentRefused,
    InstrumentTimeout,
    ProtocolError,
    refuse,
)
from drivers.instrument import Closing, check_identity
from drivers.limits import Narrowing, transmission
from drivers.shapers.slm_display import DisplayError, PhaseDisplay
from drivers.shapers.slm_grating import Grating, Levels, level_type, levels_of
from drivers.spec import Array, ArraySpec

T = TypeVar("T")

PERIOD_ROWS = (3, 64)


class SLMShaper(Closing):
    """A pulse shaper with `lines` lines, each a grating on its own columns."""

    ATTENUATION_DB = (0.0, 60.0)
    PHASE_RAD = (-2 * math.pi, 2 * math.pi)

    def __init__(
        self,
        display: PhaseDisplay,
        *,
        name: str = "shaper",
        lines: int = 1000,
        columns_per_line: int = 1,
        first_column: int = 0,
        period_rows: int = 8,
        levels_per_turn: int | None = None,
        floor_db: float = 40.0,
        settling_time_s: float = 0.1,
        expect_idn: str | None = None,
        attenuation: Narrowing | None = None,
        phase: Narrowing | None = None,
    ) -> None:
        """Take the display (closed by `close`) and the geometry; no I/O.

        Line i lies on `columns_per_line` columns from first_column + i * columns_per_line on;
        period_rows 3 to 64, of which the display's rows are a multiple; levels_per_turn: grey
        levels that make 2 pi (None: all of them); floor_db 0 to 60; settling_time_s is waited after
        each pattern; expect_idn is a regular expression that the identity must contain; attenuation
        (dB) and phase (rad) narrow the limits. Raises LimitError, or ValueError for limits that are
        wider than these.
        """
        self.name = name
        self.settling_time_s = settling_time_s
        self._display = display
        self._expect_idn = expect_idn
        low, high = PERIOD_ROWS
        if lines < 1 or columns_per_line < 1 or first_column < 0:
            message = f"{lines} lines of {columns_per_line} columns from {first_column} on"
            refuse(name, "lines", message)
        if not low <= period_rows <= high:
            refuse(name, "period_rows", f"{period_rows} is outside [{low}, {high}] rows")
        low_db, high_db = self.ATTENUATION_DB
        if not low_db <= floor_db <= high_db:
            refuse(name, "floor", f"{floor_db:g} is outside [{low_db:g}, {high_db:g}] dB")
        self._columns_per_line = columns_per_line
        self._columns = slice(first_column, first_column + lines * columns_per_line)
        self._grating = Grating(period_rows)
        self._levels_per_turn = levels_per_turn
        self._floor_db = floor_db
        light = (transmission(0.0),)
        declared = ArraySpec("attenuation", "dB", (lines,), low_db, high_db, row_limits=light)
        self._attenuation = declared.limited(attenuation)
        self._phase = ArraySpec("phase", "rad", (lines,), *self.PHASE_RAD).limited(phase)
        self._abort = Abort(name)
        self._sending = threading.RLock()  # no pattern behind another thread's `shutdown`
        self._opened = self._lost = self._closed = False

    @property
    def attenuation(self) -> ArraySpec:
        """Get what `load` accepts, (lines,) dB."""
        return self._attenuation

    @property
    def phase(self) -> ArraySpec:
        """Get what `load` accepts, (lines,) rad."""
        return self._phase

    # --- Instrument -------------------------------------------------------------------------

    def identify(self) -> str:
        """Return the display's kind and name."""
        identity = self._call("identity", self._display.identity)
        if not identity.isprintable() or " " not in identity:
            raise ProtocolError(self.name, f"identity: unusable answer {identity!r}")
        return identity

    def start(self) -> None:
        """Reconnect if need be, check who answers and that the lines fit; then show nothing.

        Raises IdentityError, LimitError, or what the display does.
        """
        self._abort.clear()
        self._lost = False
        check_identity(self.name, self.identify(), self._expect_idn)
        self._check_geometry()
        self.shutdown()

    def shutdown(self) -> None:
        """Show a flat phase, so that nothing is in the first order; idempotent.

        After a lost connection this connects again. A pattern that is being sent goes first.
        """
        with self._sending:
            if not self._closed:
                self._call("blank", lambda: self._display.show(self._flat()))

    def abort(self) -> None:
        """End a wait for settling, and refuse patterns until the next `start`; any thread."""
        self._abort.request()

    def close(self) -> None:
        """Show a flat phase and release the display; idempotent."""
        with self._sending:
            try:
                self.shutdown()
            finally:
                self._closed = True
                self._display.close()

    # --- PulseShaper ------------------------------------------------------------------------

    def load(self, attenuation_db: Array, phase_rad: Array) -> None:
        """Show the gratings of every line, each (lines,), dB and rad; return when settled.

        Raises LimitError before anything is shown; Aborted before that or while it settles;
        InstrumentRefused, InstrumentTimeout or ConnectionLost, after which only `start` goes on.
        """
        attenuation_db = self._check(self._attenuation, attenuation_db)
        phase_rad = self._check(self._phase, phase_rad)
        with self._sending:
            self._abort.check("load")
            if self._lost:
                raise ConnectionLost(self.name, "load: the connection was lost: start it again")
            self._call("load", lambda: self._display.show(self._pattern(attenuation_db, phase_rad)))
        self._abort.wait("settling", self.settling_time_s)

    def _check(self, spec: ArraySpec, values: Array) -> Array:
        checked = spec.check(values, instrument=self.name)
        if checked.ndim != 1:
            refuse(self.name, spec.name, f"shape {checked.shape} is not one profile, {spec.shape}")
        return checked

    def _pattern(self, attenuation_db: Array, phase_rad: Array) -> Levels:
        """Return the grey levels (rows, columns) of the whole display; raises LimitError."""
        self._check_geometry()  # the display may be another one than at the start
        amplitude = np.where(attenuation_db > self._floor_db, 0.0, 10.0 ** (attenuation_db / -20))
        bits = self._display.bits
        phases = self._grating.phases(amplitude, phase_rad)
        period = levels_of(phases, self._levels_per_turn or 2**bits, bits)
        levels = self._flat()
        rows = period.shape[0]
        repeated = levels.reshape(levels.shape[0] // rows, rows, levels.shape[1])
        repeated[:, :, self._columns] = np.repeat(period, self._columns_per_line, axis=1)
        return levels

    def _flat(self) -> Levels:
        return np.zeros(self._display.shape, dtype=level_type(self._display.bits))

    # --- the display ------------------------------------------------------------------------

    def _check_geometry(self) -> None:
        rows, columns = self._display.shape
        bits, period = self._display.bits, self._grating.period
        if self._columns.stop > columns:
            message = f"columns {self._columns.start} to {self._columns.stop - 1} are outside "
            refuse(self.name, "lines", message + f"this display's [0, {columns - 1}]")
        if rows % period:
            refuse(self.name, "period_rows", f"{rows} rows are no multiple of {period}")
        turn = self._levels_per_turn
        if turn is not None and not 2 <= turn <= 2**bits:
            refuse(self.name, "levels_per_turn", f"{turn} is outside [2, {2**bits}] levels")

    def _call(self, asked: str, function: Callable[[], T]) -> T:
        """Call the display, opened if need be; its errors become this driver's."""
        if self._closed:
            raise ConnectionLost(self.name, f"{asked}: the driver has been closed")
        try:
            if not self._opened:
                self._display.open()
                self._opened = True
            return function()
        except DisplayError as error:
            raise InstrumentRefused(self.name, f"{asked}: {error}") from error
        except TimeoutError as error:
            self._lose()
            raise InstrumentTimeout(self.name, f"{asked}: no answer ({error})") from error
        except OSError as error:
            self._lose()
            raise ConnectionLost(self.name, f"{asked}: {error}") from error

    def _lose(self) -> None:
        """Let the next call connect again, and the next pattern wait for `start`."""
        self._opened = False
        self._lost = True

"""The physical transformation y = f_p(x, theta), made of instruments that are wired together."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from drivers.errors import Aborted
from drivers.instrument import Adjusting, Instrument
from drivers.row_key import RowKey
from drivers.spec import Array, ArraySpec
from lab.permits import Permit
from lab.safe_state import in_parallel, shut_down


@dataclass(frozen=True)
class SystemDescription:
    """What a caller must know of a system: its three arrays and the real time of one row.

    `row_time_s` is the declared time that one row takes in the lab (settling plus sweep),
    whether or not a simulated bench honours it. `drives` says what x and theta are: neighbouring
    "channels", or "series" that are added and played.
    """

    name: str
    x: ArraySpec
    theta: ArraySpec
    y: ArraySpec
    row_time_s: float
    drives: Literal["channels", "series"] = "channels"

    @property
    def zero(self) -> float:
        """Get what a y of 0 is in normalised units; the nearer end where 0 is out of range."""
        return float(np.clip(self.y.to_normalised(np.zeros(())), 0.0, 1.0))


@dataclass(frozen=True)
class Rows:
    """Measured rows: y (rows, *y.shape) in the unit of the y spec; flags (rows,).

    saturated: the detector reached full scale. out_of_sync: output and input could not be aligned
    (None: the system has no clocks that could slip).
    """

    y: Array
    saturated: NDArray[np.bool_]
    out_of_sync: NDArray[np.bool_] | None = None

    def part(self, rows: slice) -> "Rows":
        """Return some of the rows."""
        slipped = None if self.out_of_sync is None else self.out_of_sync[rows]
        return Rows(self.y[rows], self.saturated[rows], slipped)


def never() -> bool:
    """Keep going: the default of every `stop`."""
    return False


class Announce(Protocol):
    """Tells simulated physics the keys of the rows of the next instrument call, in order.

    coming: all keys of the pass that they belong to, where that is known, so that physics at the
    other end of a network need hear of a pass only once. No keys: what comes has none.
    """

    def __call__(self, keys: Sequence[RowKey], coming: Sequence[RowKey] = ()) -> None:
        """Announce; raises what the way to the physics raises."""
        ...


class PhysicalSystem:
    """One physical system; blocking, used by one thread at a time, physical units.

    A subclass measures single rows (`_measure_row`), or sets `batch_rows` to the most rows that
    fit into one instrument call and measures them together (`_measure_batch`).

    dark_first: the instruments whose safe state must come before the others' (a light source).
    permits: what has to permit that the instruments are driven; set by whoever opens the bench.
    """

    description: SystemDescription
    instruments: tuple[Instrument, ...]
    batch_rows: int = 1
    dark_first: tuple[Instrument, ...] = ()
    permits: tuple[Permit, ...] = ()

    _coming: Sequence[RowKey] = ()

    def __init__(self, announce: Announce | None = None) -> None:
        """Take `announce`, which tells simulated physics the next rows' keys (None: real rig)."""
        self._announce = announce
        self._using = threading.RLock()
        self._abort_start = threading.Event()

    def transform(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey] | None = None,
        stop: Callable[[], bool] = never,
    ) -> Rows:
        """Measure rows of x (rows, *x.shape) and theta (rows, *theta.shape), physical units.

        All rows are checked before the first byte is sent; `stop` is asked between instrument
        calls, and once it says so the rows measured so far are returned. Raises LimitError for
        values out of range, DriverError when an instrument fails.
        """
        x, theta = self.check(x, theta)
        if keys is not None and len(keys) != len(x):
            raise ValueError(f"{self.description.name}: {len(x)} rows but {len(keys)} row keys")
        self.adjust_if_due()
        self.expect(keys or ())
        parts: list[Rows] = []
        for i in range(0, len(x), self.batch_rows):
            if stop():
                break
            rows = slice(i, i + self.batch_rows)
            parts.append(self.measure(x[rows], theta[rows], None if keys is None else keys[rows]))
        if not parts:
            return Rows(np.empty((0, *self.description.y.shape)), np.empty(0, dtype=bool))
        return joined(parts)

    def measure(self, x: Array, theta: Array, keys: Sequence[RowKey] | None = None) -> Rows:
        """Measure at most `batch_rows` checked rows in one instrument call; else as `transform`.

        Raises NotPermitted, before anything is sent or, where a permit was withdrawn meanwhile,
        instead of returning what was measured.
        """
        with self._using:
            return self._permitted(x, theta, keys)

    def _permitted(self, x: Array, theta: Array, keys: Sequence[RowKey] | None) -> Rows:
        self._check_permits()
        if self._announce is not None:
            self._announce(keys or (), self._coming)
        try:
            return self._measure_batch(x, theta)
        finally:
            self._check_permits()

    def _check_permits(self) -> None:
        for permit in self.permits:
            permit.check()

    def adjust_if_due(self) -> None:
        """Let instruments adjust themselves that have to, such as a detector's offset.

        For between passes; may take a minute. Raises NotPermitted, or an instrument's DriverError.
        """
        for instrument in self.instruments:
            if isinstance(instrument, Adjusting):
                with self._using:
                    self._check_permits()
                    instrument.adjust_if_due()

    def expect(self, keys: Sequence[RowKey]) -> None:
        """Say which pass the next calls of `measure` belong to, by all its keys; () for none."""
        self._coming = keys

    def check(self, x: Array, theta: Array) -> tuple[Array, Array]:
        """Return checked arrays of shape (rows, ...), the caller's own, or raise LimitError.

        Nothing is sent. Checked is also what the instruments would be given for these rows, where
        they limit more than the range of values.
        """
        d = self.description
        x = d.x.check(x, instrument=d.name)
        theta = d.theta.check(theta, instrument=d.name)
        if x.ndim != len(d.x.shape) + 1 or theta.ndim != len(d.theta.shape) + 1:
            raise ValueError(
                f"{d.name}: x {x.shape} and theta {theta.shape} must be (rows, ...) arrays"
            )
        if len(x) != len(theta):
            raise ValueError(f"{d.name}: {len(x)} rows of x but {len(theta)} rows of theta")
        self._check_drives(x, theta)
        return x, theta

    def _check_drives(self, x: Array, theta: Array) -> None:
        """Raise LimitError if an instrument would refuse one of the rows; nothing unless needed.

        For limits that the ranges of x and theta cannot keep, such as an RMS: otherwise rows of one
        pass would have been sent when a later one is refused.
        """

    def dark_row(self) -> tuple[Array, Array]:
        """Return x and theta, (1, ...) each, that leave y dark: 0, or what is allowed next to it.

        Bring-up measures it, and `reference_row`.
        """
        d = self.description
        x, theta = (np.full((1, *s.shape), np.clip(0.0, s.low, s.high)) for s in (d.x, d.theta))
        return x, theta

    def reference_row(self) -> tuple[Array, Array]:
        """Return x and theta, (1, ...) each, that give a strong y: here 3/4 of their ranges."""
        d = self.description
        x, theta = (s.to_physical(np.full((1, *s.shape), 0.75)) for s in (d.x, d.theta))
        return x, theta

    def narrow(self, limits: Mapping[str, tuple[float, float]]) -> None:
        """Tighten the ranges of x or theta; raise ValueError for a wider or an unknown one."""
        for name, (low, high) in limits.items():
            if name not in ("x", "theta"):
                raise ValueError(f"limits.{name}: only x and theta have limits to narrow")
            d = self.description
            if name == "x":
                self.description = replace(d, x=d.x.narrowed(low, high))
            else:
                self.description = replace(d, theta=d.theta.narrowed(low, high))

    def _measure_batch(self, x: Array, theta: Array) -> Rows:
        """Write, trigger and read up to `batch_rows` rows; one, unless a subclass can do more."""
        y, saturated = self._measure_row(x[0], theta[0])
        return Rows(y[None], np.array([saturated]))

    def _measure_row(self, x: Array, theta: Array) -> tuple[Array, bool]:
        """Write, trigger and read one row; return y and whether it saturated."""
        raise NotImplementedError(f"{type(self).__name__} measures neither rows nor batches")

    def identify(self) -> dict[str, str]:
        """Return each instrument's own identity by its bench-file name."""
        return {i.name: i.identify() for i in self.instruments}

    def abort(self, reason: Exception | None = None) -> None:
        """Let whatever runs on the instruments end soon with Aborted; from any thread.

        So does all that follows, but for `shutdown`, until the next `start`. An instrument of
        one's own may lack `abort`; it is waited for.
        """
        self._abort_start.set()
        for instrument in self.instruments:
            abort = getattr(instrument, "abort", None)
            if abort is not None:
                abort()

    def start(self) -> None:
        """Identify every instrument and bring it, settings applied, to its safe state.

        Raises NotPermitted before anything is sent, or before the next instrument; there also
        Aborted.
        """
        with self._using:
            self._abort_start.clear()
            for instrument in self.instruments:
                self._check_permits()
                if self._abort_start.is_set():
                    raise Aborted(instrument.name, "start: aborted")
                instrument.start()
            self._forget_announced()

    def _forget_announced(self) -> None:
        """Have what comes announced anew: simulated physics may be new, too."""
        if self._announce is not None and self._coming:
            self._coming = ()
            self._announce(())

    def shutdown(self) -> None:
        """Bring every instrument to its safe state, each even if another one fails or hangs.

        In parallel, but for those that go `dark_first`. Raises an ExceptionGroup of DriverErrors.
        """
        shut_down(self.description.name, self.instruments, self.dark_first)

    def make_safe_soon(self, reason: Exception | None = None) -> None:
        """Shut down in a thread of its own, once the instrument call in flight has ended.

        For who uses the system directly, while it is idle too. What cannot be reached is left to
        the next use, which fails.
        """

        def make_safe() -> None:
            with self._using, suppress(ExceptionGroup):
                self.shutdown()

        threading.Thread(target=make_safe, name="safe-state", daemon=True).start()


def shut_down_systems(systems: Collection[PhysicalSystem]) -> None:
    """Shut all systems down: in parallel, or one after the other where some share instruments.

    Whoever still measures, in another thread, is aborted: no row follows the safe state.
    """
    for system in systems:
        system.abort()
    used = [id(instrument) for system in systems for instrument in system.instruments]
    calls = [system.shutdown for system in systems]
    if len(set(used)) == len(used):
        in_parallel(calls)
        return
    with ExitStack() as stack:  # each even if another one fails
        for call in reversed(calls):
            stack.callback(call)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of one or several instrument calls as one."""
    if len(parts) == 1:
        return parts[0]
    out_of_sync = [p.out_of_sync for p in parts if p.out_of_sync is not None]
    return Rows(
        np.concatenate([p.y for p in parts]),
        np.concatenate([p.saturated for p in parts]),
        np.concatenate(out_of_sync) if out_of_sync else None,
    )

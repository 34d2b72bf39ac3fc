"""What a system's own worker thread does: the only code that touches the instruments.

Plain blocking functions. A failed start or call leaves, as far as it can be reached, a system in
its safe state by the time anyone hears of the failure; where it cannot, the error carries a note.
"""

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from drivers.errors import Aborted, LimitError, ProtocolError, parts, reason
from drivers.spec import Array
from lab.scheduling.rhythm import Rhythm
from lab.scheduling.ticket import HardwareCall, Portion
from lab.systems.base import PhysicalSystem, Rows

Piece = tuple[Portion, int]
"""Some rows of a portion, from where its ticket stands, that go into one instrument call."""


def start(system: PhysicalSystem) -> None:
    """Start the system, or put it into its safe state and raise what went wrong."""
    try:
        system.start()
    except Exception as error:
        make_safe(system, error)
        raise


def restart(system: PhysicalSystem, halted: threading.Event) -> None:
    """Shut down as far as possible, then start; the start decides whether the system is ok.

    Raises Aborted instead of starting once `halted`: what starts would be driven once more.

    Starting is the recovery: it clears, re-identifies, applies the settings and reads them back.
    """
    try:
        system.shutdown()
    except Exception as error:
        try:
            _start_unless(halted, system)
        except Exception as second:
            second.add_note(f"before that, the shutdown failed: {parts(error)}")
            raise
    else:
        _start_unless(halted, system)


def _start_unless(halted: threading.Event, system: PhysicalSystem) -> None:
    if halted.is_set():
        raise Aborted(system.description.name, "start: aborted")
    start(system)


def make_safe(system: PhysicalSystem, error: Exception) -> None:
    """Put the system into its safe state; a failure becomes a note on `error`."""
    try:
        system.shutdown()
    except Exception as second:
        error.add_note(f"safe state not confirmed: {parts(second)}")


def unsafe(system: PhysicalSystem) -> dict[str, str]:
    """Put the system into its safe state; return what went wrong, by instrument."""
    try:
        system.shutdown()
    except Exception as error:
        found = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        names = [getattr(part, "instrument", system.description.name) for part in found]
        return {n: reason(e).removeprefix(f"{n}: ") for n, e in zip(names, found, strict=True)}
    return {}


def run_planned(
    system: PhysicalSystem,
    first: HardwareCall,
    following: Callable[[HardwareCall], HardwareCall | None],
    clock: Callable[[], float],
    rhythm: Rhythm | None,
) -> HardwareCall:
    """Run a call, and the ones that follow without a pause; return the last.

    following: tells the loop that a call has ended, and returns what it has planned behind it;
    None where there is nothing. Nothing follows a call that went wrong.
    """
    call, next_call = first, None
    while True:
        run(system, call, clock, rhythm)
        if call.error is not None or (next_call := following(call)) is None:
            return call
        next_call.first_shot = call.first_shot + call.executed
        call = next_call


def run(
    system: PhysicalSystem, call: HardwareCall, clock: Callable[[], float], rhythm: Rhythm | None
) -> None:
    """Measure the call's rows, one instrument call after the other, until its end or its cut.

    One instrument call is made even if the cut came before it: the passes have had their turn.
    A LimitError fails its own pass (the driver sent nothing of it); any other error ends the call
    and puts the system into its safe state. Both stay on the call and its tickets.

    Instruments that have to adjust themselves do so first: not in the middle of the call, and not
    in its time.
    """
    call.begun_s = clock()
    waiting = deque(call.portions)
    try:
        system.adjust_if_due()
        call.begun_s = clock()
        pieces = _next_pieces(waiting, system.batch_rows)
        while pieces:
            if rhythm is not None:
                call.paused_s += rhythm.wait()
                if not any(portion.left for portion, _ in pieces):
                    break  # stopped meanwhile
            _tell_beginning(call, pieces)
            _measure(system, call, pieces, clock)
            _tell_finished(call, pieces)
            pieces = [] if call.cut else _next_pieces(waiting, system.batch_rows)
    except Exception as error:
        call.error = error
        make_safe(system, error)
    else:
        if call.abandoned:
            call.error = ProtocolError(system.description.name, "the call returned too late")
            make_safe(system, call.error)
    call.ended_s = clock()


def idle_shot(system: PhysicalSystem, drive: tuple[Array, Array], rhythm: Rhythm) -> None:
    """Measure one row, x and theta (1, ...), for nobody, to keep the rhythm."""
    rhythm.wait()
    try:
        system.expect(())
        system.measure(*drive)
    except Exception as error:
        make_safe(system, error)
        raise


def _next_pieces(waiting: deque[Portion], room: int) -> list[Piece]:
    """Return the rows of the next instrument call, at most `room`, and drop finished portions.

    Rows with keys and rows without do not share a call: the plant numbers the latter itself.
    """
    while waiting and waiting[0].left == 0:
        waiting.popleft()
    if room == 1:
        return [(waiting[0], 1)] if waiting else []
    pieces: list[Piece] = []
    for portion in waiting:
        if room == 0 or (pieces and _has_keys(portion) != _has_keys(pieces[0][0])):
            break
        rows = min(portion.left, room)
        if rows > 0:
            pieces.append((portion, rows))
            room -= rows
    return pieces


def _has_keys(portion: Portion) -> bool:
    return portion.ticket.forward_pass.keys is not None


def _measure(
    system: PhysicalSystem, call: HardwareCall, pieces: list[Piece], clock: Callable[[], float]
) -> None:
    """Measure pieces in one instrument call, and keep each one's rows."""
    total = pieces[0][1] if len(pieces) == 1 else sum(rows for _, rows in pieces)
    began = clock()
    try:
        rows = _instrument_call(system, pieces)
        _check(system, rows, total)
    except LimitError as error:
        if len(pieces) == 1:
            pieces[0][0].ticket.error = error
            return
        for piece in pieces:  # nothing was sent: alone, each shows whether it is to blame
            if piece[0].left and not call.abandoned:
                _measure(system, call, [piece], clock)
        return
    except Exception:
        call.executed += total
        call.interrupted = {portion.ticket: count for portion, count in pieces}
        raise
    ended, offset = clock(), 0
    for portion, count in pieces:
        shot = call.first_shot + call.executed
        portion.ticket.keep(rows, offset, count, shot, began, ended)
        portion.executed += count
        call.executed += count
        offset += count


def _check(system: PhysicalSystem, rows: Rows, count: int) -> None:
    """Raise ProtocolError if a system returns something else than `count` rows."""
    name, shape = system.description.name, system.description.y.shape
    if rows.y.shape != (count, *shape):
        if len(rows.y) != count:
            raise ProtocolError(name, f"measured {len(rows.y)} of {count} rows")
        raise ProtocolError(name, f"measured y of shape {rows.y.shape[1:]} instead of {shape}")
    for flags in (rows.saturated, rows.out_of_sync):
        if flags is not None and flags.shape != (count,):
            raise ProtocolError(name, f"flags of {flags.shape} for {count} rows")


def _instrument_call(system: PhysicalSystem, pieces: list[Piece]) -> Rows:
    if len(pieces) == 1:
        portion, count = pieces[0]
        p, at = portion.ticket.forward_pass, portion.ticket.done
        system.expect(p.keys or ())
        rows = slice(at, at + count)
        return system.measure(p.x[rows], p.theta[rows], None if p.keys is None else p.keys[rows])
    system.expect(())
    passes = [portion.ticket.forward_pass for portion, _ in pieces]
    parts = [slice(p.ticket.done, p.ticket.done + count) for p, count in pieces]
    x = np.concatenate([p.x[rows] for p, rows in zip(passes, parts, strict=True)])
    theta = np.concatenate([p.theta[rows] for p, rows in zip(passes, parts, strict=True)])
    keys = [k for p, rows in zip(passes, parts, strict=True) for k in (p.keys or ())[rows]]
    return system.measure(x, theta, keys or None)


def _tell_beginning(call: HardwareCall, pieces: list[Piece]) -> None:
    """Let the time limits of passes run from their first row."""
    for portion, _ in pieces:
        if portion.ticket.done == 0 and portion.ticket.forward_pass.timeout_s is not None:
            call.begins(portion.ticket)


def _tell_finished(call: HardwareCall, pieces: list[Piece]) -> None:
    """Let the callers of complete passes have them now, though the call goes on."""
    for portion, _ in pieces:
        if portion.ticket.done == portion.ticket.rows and portion is not call.portions[-1]:
            call.finished(portion.ticket)

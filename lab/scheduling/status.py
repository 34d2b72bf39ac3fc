"""What the scheduler tells of a system and of its queue."""

import time
from dataclasses import dataclass
from typing import Literal

from lab.scheduling.estimate import expect
from lab.scheduling.reservations import Reservation
from lab.scheduling.system_queue import SystemQueue
from lab.scheduling.ticket import Ticket


@dataclass(frozen=True)
class SystemStatus:
    """The health of one system.

    state:        ok, faulted (does nothing until recovered), stopped (by somebody, likewise),
                  closed.
    reason:       why it is faulted, or what its last shutdown could not confirm; else empty.
    since_s:      when the state began, seconds since the epoch.
    recovery_tries: tries to recover since a row was last measured; next_try_s: seconds until the
                  next one, None where somebody has to ask for it.
    waiting:      queued passes; waiting_rows: their rows; running: ids of the passes on the
                  hardware.
    row_time_s:   hardware time of a row as last measured, None before the first.
    rows_done:    rows measured since start; next_shot: the shot number of the next row.
    idle_shots, late_shots: of a system with a shot period, since start.
    busy_s:       hardware time used since start; duty_cycle: its share of the last minute, 0 to 1.
    calibration:  the name of the calibration in force, empty if there is none.
    reservation:  who has the system for itself, or None.
    """

    name: str
    state: Literal["ok", "faulted", "stopped", "closed"]
    reason: str
    since_s: float
    recovery_tries: int
    next_try_s: float | None
    waiting: int
    waiting_rows: int
    running: list[str]
    row_time_s: float | None
    rows_done: int
    next_shot: int
    idle_shots: int
    late_shots: int
    busy_s: float
    duty_cycle: float
    calibration: str
    reservation: Reservation | None


@dataclass(frozen=True)
class QueuedPass:
    """One pass that waits or runs; times in seconds since the epoch.

    rows_done:  rows measured so far. start_s, finish_s: expected, from the present queue and the
    measured row time (None: no row has been measured yet, the system does not work, or a
    reservation must end first).
    """

    pass_id: str
    system: str
    client: str
    priority: int
    rows: int
    rows_done: int
    running: bool
    submitted_s: float
    deadline_s: float | None
    reservation: int | None
    start_s: float | None
    finish_s: float | None


def system_status(queue: SystemQueue) -> SystemStatus:
    """Return the health of a system as of now."""
    hardware, health = queue.hardware, queue.health
    now, call = hardware.now(), hardware.running
    # the rest of a running pass waits for its next slice: it is not counted twice
    running = [] if call is None else [p.ticket for p in call.portions]
    partly = [t for t in running if queue.passes.waits(t)]
    since = call.begun_s if call is not None and call.begun_s else None
    return SystemStatus(
        name=queue.name,
        state=_state(queue),
        reason=health.reason,
        since_s=health.since_s,
        recovery_tries=health.tried,
        next_try_s=None if health.next_s is None else max(0.0, health.next_s - now),
        waiting=len(queue.passes) - len(partly),
        waiting_rows=queue.passes.rows - sum(t.waiting_rows for t in partly),
        running=[t.forward_pass.pass_id for t in running],
        row_time_s=hardware.row_time_s,
        rows_done=hardware.rows_done,
        next_shot=hardware.next_shot,
        idle_shots=hardware.idle_shots,
        late_shots=0 if hardware.rhythm is None else hardware.rhythm.late,
        busy_s=hardware.busy.total_s + (now - since if since is not None else 0.0),
        duty_cycle=hardware.busy.share(now, since),
        calibration=queue.calibration,
        reservation=queue.passes.reservations.current,
    )


def _state(queue: SystemQueue) -> Literal["ok", "faulted", "stopped", "closed"]:
    if queue.closed:
        return "closed"
    if queue.health.stopped:
        return "stopped"
    return "faulted" if queue.health.reason else "ok"


def queued_passes(queue: SystemQueue, limit: int) -> list[QueuedPass]:
    """Return at most `limit` passes that run or wait, the next to finish first."""
    call = queue.hardware.running
    running = [] if call is None else [p.ticket for p in call.portions]
    live = [t for t in running if not t.outcome.done()]
    tickets = live + [t for t in queue.passes.tickets() if t not in live]
    if queue.hardware.row_time_s is None or queue.health.reason:
        return [_queued(t, t in live, None, None) for t in tickets[:limit]]
    now = time.time()
    served = [t for t in tickets if queue.passes.serves(t)]
    expected = [
        _queued(e.ticket, e.ticket in live, now + e.start_s, now + e.finish_s)
        for e in expect(served, queue.hardware.row_time_s, queue.config.weights, limit)
    ]
    others = [_queued(t, t in live, None, None) for t in tickets if not queue.passes.serves(t)]
    return (expected + others)[:limit]


def _queued(
    ticket: Ticket, running: bool, start_s: float | None, finish_s: float | None
) -> QueuedPass:
    p = ticket.forward_pass
    begun = ticket.done > 0 and ticket.rows > 0
    return QueuedPass(
        pass_id=p.pass_id,
        system=p.system,
        client=p.client,
        priority=p.priority,
        rows=ticket.rows,
        rows_done=ticket.done,
        running=running,
        submitted_s=ticket.submitted_s,
        deadline_s=p.deadline_s,
        reservation=p.reservation,
        start_s=ticket.started_s if begun else start_s,
        finish_s=finish_s,
    )

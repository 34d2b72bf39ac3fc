"""When passes will start and end, as far as the present queue and measured row times tell.

The queue is taken as a fluid: the lines of the highest priority share the hardware by weight until
one of them has nothing left. Passes that come later, slices and ageing are left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.scheduling.ticket import Ticket


@dataclass(frozen=True)
class Expected:
    """A ticket with its expected start and finish, seconds from now."""

    ticket: Ticket
    start_s: float
    finish_s: float


@dataclass(eq=False)
class _Line:
    """A client's tickets of one priority, the next one last, and the time its head still needs."""

    weight: float
    tickets: list[Ticket]
    head_s: float = 0.0
    head_started_s: float = 0.0


def expect(
    tickets: Iterable[Ticket], row_time_s: float, weights: dict[str, float], limit: int
) -> list[Expected]:
    """Return what is expected of the first `limit` tickets to finish, in that order."""
    by_priority: dict[int, dict[str, list[Ticket]]] = {}
    for ticket in tickets:
        p = ticket.forward_pass
        by_priority.setdefault(p.priority, {}).setdefault(p.client, []).append(ticket)
    expected: list[Expected] = []
    now = 0.0
    for priority in sorted(by_priority, reverse=True):
        lines = [
            _Line(weights.get(client, 1.0), sorted(waiting, key=_place, reverse=True))
            for client, waiting in by_priority[priority].items()
        ]
        now = _drain(lines, now, row_time_s, expected, limit)
        if len(expected) >= limit:
            break
    return expected


def _place(ticket: Ticket) -> tuple[int, int]:
    return -ticket.forward_pass.depth, ticket.number


def _drain(
    lines: Sequence[_Line], now: float, row_time_s: float, expected: list[Expected], limit: int
) -> float:
    """Let the lines share the hardware until all are empty; return the time when they are."""
    active = list(lines)
    for line in active:
        _begin(line, now, row_time_s)
    while active and len(expected) < limit:
        total = sum(line.weight for line in active)
        first = min(active, key=lambda line: line.head_s / line.weight)
        passed = first.head_s / first.weight * total
        now += passed
        for line in active:
            line.head_s -= passed * line.weight / total
        ticket = first.tickets.pop()
        expected.append(Expected(ticket, first.head_started_s, now))
        if first.tickets:
            _begin(first, now, row_time_s)
        else:
            active.remove(first)
    return now


def _begin(line: _Line, now: float, row_time_s: float) -> None:
    ticket = line.tickets[-1]
    line.head_s, line.head_started_s = (ticket.rows - ticket.done) * row_time_s, now

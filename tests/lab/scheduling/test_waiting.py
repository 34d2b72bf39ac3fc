"""The order of the waiting passes against the policy spelled out naively, line by line."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.measurement import ForwardPass
from lab.scheduling.ticket import Ticket
from lab.scheduling.waiting import WaitingPasses

WEIGHTS = {"b": 2.0}
LONGEST_WAIT_S = 5.0

seconds = st.sampled_from([0.3, 1.0, 2.5])
operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"), st.sampled_from("ab"), st.sampled_from([0, 0, 1]), st.integers(0, 1)
        ),
        st.tuples(st.just("pop"), st.sampled_from(["ends", "comes back"]), seconds),
        st.tuples(st.just("pop"), st.just("comes back"), seconds),
        st.tuples(st.just("pop"), st.just("never ran"), st.just(0.0)),
        st.tuples(st.just("remove"), st.integers(0, 100)),
        st.tuples(st.just("time passes"), st.sampled_from([0.5, 3.0])),
    ),
    min_size=10,
    max_size=60,
)


@dataclass
class NaiveLine:
    used: float
    served_s: float
    tickets: list[Ticket] = field(default_factory=list)


class NaivePolicy:
    """What may go next, found by looking at everything."""

    def __init__(self) -> None:
        self.lines: dict[tuple[int, str], NaiveLine] = {}
        self.levels: dict[int, float] = {}

    def line(self, ticket: Ticket, now: float) -> NaiveLine:
        p = ticket.forward_pass
        used = self.levels.setdefault(p.priority, 0.0)
        return self.lines.setdefault((p.priority, p.client), NaiveLine(used, now))

    def add(self, ticket: Ticket, now: float, again: bool = False) -> None:
        line = self.line(ticket, now)
        if not line.tickets:
            line.used = max(line.used, self.levels[ticket.forward_pass.priority])
            line.served_s = line.served_s if again else now
        line.tickets.append(ticket)

    def candidates(self, now: float) -> list[Ticket]:
        """Return the tickets that may go next: one, but for lines that are level."""
        lines = {key: line for key, line in self.lines.items() if line.tickets}
        oldest = min((line.served_s for line in lines.values()), default=now)
        if now - oldest > LONGEST_WAIT_S:
            chosen = [line for line in lines.values() if line.served_s == oldest]
        else:
            highest = max((priority for priority, _ in lines), default=0)
            level = [line for (priority, _), line in lines.items() if priority == highest]
            least = min((line.used for line in level), default=0.0)
            chosen = [line for line in level if line.used == least]
        return [min(line.tickets, key=place) for line in chosen]

    def take(self, ticket: Ticket) -> None:
        p = ticket.forward_pass
        line = self.lines[p.priority, p.client]
        line.tickets.remove(ticket)
        self.levels[p.priority] = max(self.levels[p.priority], line.used)

    def charge(self, ticket: Ticket, hardware_s: float, now: float) -> None:
        line = self.line(ticket, now)
        line.used += hardware_s / WEIGHTS.get(ticket.forward_pass.client, 1.0)
        line.served_s = now

    def all(self) -> list[Ticket]:
        tickets = [ticket for line in self.lines.values() for ticket in line.tickets]
        return sorted(tickets, key=lambda t: t.number)


def place(ticket: Ticket) -> tuple[int, int]:
    return -ticket.forward_pass.depth, ticket.number


@settings(max_examples=200, deadline=None)
@given(operations)
def test_what_goes_next_is_what_the_policy_says(ops: list[tuple[Any, ...]]) -> None:
    asyncio.run(compare(ops))


async def compare(ops: list[tuple[Any, ...]]) -> None:
    waiting, naive, now = WaitingPasses(LONGEST_WAIT_S, WEIGHTS), NaivePolicy(), 0.0
    for number, op in enumerate(ops):
        match op:
            case ("add", client, priority, depth):
                ticket = new_ticket(number, client, priority, depth)
                waiting.add(ticket, now)
                naive.add(ticket, now)
            case ("pop", then, hardware_s):
                ticket = waiting.pop(now)
                candidates = naive.candidates(now)
                assert ticket in candidates if candidates else ticket is None
                if ticket is not None:
                    naive.take(ticket)
                    serve(ticket, then, hardware_s, now, waiting, naive)
            case ("remove", which) if naive.all():
                ticket = naive.all()[which % len(naive.all())]
                assert waiting.remove(ticket)
                assert not waiting.remove(ticket)
                naive.lines[
                    ticket.forward_pass.priority, ticket.forward_pass.client
                ].tickets.remove(ticket)
            case ("time passes", seconds):
                now += seconds
        check_counts(waiting, naive)
    assert waiting.pop_all() == naive.all()
    assert (len(waiting), waiting.rows, waiting.pop(now)) == (0, 0, None)


def serve(
    ticket: Ticket,
    then: str,
    hardware_s: float,
    now: float,
    waiting: WaitingPasses,
    naive: NaivePolicy,
) -> None:
    """Let a popped ticket use hardware time, and end or wait for its next slice."""
    if then != "never ran":
        waiting.charge(ticket, hardware_s)
        waiting.served(ticket, now)
        naive.charge(ticket, hardware_s, now)
    if then != "ends":
        waiting.add(ticket, now, again=True)
        naive.add(ticket, now, again=True)


def check_counts(waiting: WaitingPasses, naive: NaivePolicy) -> None:
    tickets = naive.all()
    assert sorted(waiting.tickets(), key=lambda t: t.number) == tickets
    assert len(waiting) == len(tickets)
    assert waiting.rows == sum(t.rows for t in tickets)
    for client in "ab":
        mine = [t for t in tickets if t.forward_pass.client == client]
        assert waiting.of_client[client] == len(mine)


def new_ticket(number: int, client: str, priority: int, depth: int) -> Ticket:
    rows = np.zeros((1 + number % 3, 1))
    request = ForwardPass(
        "rig", rows, rows, priority=priority, client=client, pass_id=f"{number}", depth=depth
    )
    return Ticket(request, number)

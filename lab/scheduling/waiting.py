"""The passes that wait in front of one system, and the order in which they go.

`WaitingPasses.peek` is the whole policy:

1. A line (one client's passes of one priority) from which nothing has run for `longest_wait_s`
   goes first, the longest waiting of these before the others: nobody starves.
2. Else the highest priority.
3. Among lines of equal priority the one that has used the least hardware time over its client's
   weight (start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996). Who comes back after a pause
   starts level with the others and has saved up nothing.
4. Within a line its jobs take turns, slice by slice, so that a quick look does not wait for the
   same person's training; passes that belong to no job are together one more.
5. Of one job's passes the deepest first, then first come, first served.

Adding and taking cost the same, up to a logarithm, however many wait; removing one from the middle
costs what its job has waiting. Everything here runs on the event loop's thread.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.scheduling.ticket import Ticket

_FORGET_AFTER_S = 60.0  # what a line has used, once it has been empty for so long
_REMEMBERED = 1000  # lines that are remembered in any case


@dataclass(eq=False)
class Line:
    """One client's passes of one priority.

    used:   hardware time over weight. served_s: when rows of it last ran, or it was last empty.
    jobs:   the tickets of each job, whose turn is next first.
    queued, ageing: whether it stands in the heap of its priority, and of the longest waiting.
    """

    priority: int
    client: str
    used: float
    served_s: float
    count: int = 0
    queued: bool = False
    ageing: bool = False
    jobs: OrderedDict[str, list[tuple[int, int, Ticket]]] = field(default_factory=OrderedDict)

    def add(self, ticket: Ticket) -> None:
        """Add a ticket to its job's heap; a job that had none comes behind the others."""
        heapq.heappush(
            self.jobs.setdefault(ticket.forward_pass.job, []),
            (-ticket.forward_pass.depth, ticket.number, ticket),
        )
        self.count += 1

    def head(self) -> Ticket:
        """Return the next ticket of the job whose turn it is."""
        return next(iter(self.jobs.values()))[0][2]

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket wherever it stands."""
        job = ticket.forward_pass.job
        heap = self.jobs[job]
        if heap[0][2] is ticket:
            heapq.heappop(heap)
        else:
            heap.remove((-ticket.forward_pass.depth, ticket.number, ticket))
            heapq.heapify(heap)
        self.count -= 1
        if not heap:
            del self.jobs[job]

    def end_turn(self, job: str) -> None:
        """Let the other jobs go before this one."""
        if job in self.jobs:
            self.jobs.move_to_end(job)


@dataclass(eq=False)
class Level:
    """The lines of one priority by what they have used; an entry may lag behind its line.

    used: what the line served last had used when its turn came.
    """

    used: float = 0.0
    heap: list[tuple[float, int, Line]] = field(default_factory=list)


class WaitingPasses:
    """Keep tickets in the order that the module's docstring states; times are monotonic seconds."""

    def __init__(self, longest_wait_s: float, weights: Mapping[str, float] | None = None) -> None:
        """Start empty; clients without a weight have 1."""
        self.rows = 0
        self.of_client: Counter[str] = Counter()
        self._longest_wait_s = longest_wait_s
        self._weights = weights or {}
        self._tickets: dict[str, Ticket] = {}
        self._lines: dict[tuple[int, str], Line] = {}
        self._by_wait: list[tuple[float, int, Line]] = []  # by served_s; entries may lag behind
        self._levels: dict[int, Level] = {}
        self._turns = 0

    def __len__(self) -> int:
        """Return how many passes wait."""
        return len(self._tickets)

    def tickets(self) -> list[Ticket]:
        """Return all that wait, in no particular order."""
        return list(self._tickets.values())

    def weight(self, client: str) -> float:
        """Return a client's share relative to others."""
        return self._weights.get(client, 1.0)

    def add(self, ticket: Ticket, now: float, again: bool = False) -> None:
        """Queue a ticket in its place.

        again: it was popped before, and its line waits on as if it had not been.
        """
        p = ticket.forward_pass
        line = self._line(p.priority, p.client, now)
        if line.count == 0:
            if not again:
                line.served_s = now
            self._let_age(line)
            line.used = max(line.used, self._levels.setdefault(line.priority, Level()).used)
            self._enter(line)
        line.add(ticket)
        self._tickets[p.pass_id] = ticket
        self.of_client[p.client] += 1
        ticket.waiting_rows = ticket.rows - ticket.done
        self.rows += ticket.waiting_rows

    def peek(self, now: float) -> Ticket | None:
        """Return the ticket that goes next, or None."""
        line = self._next_line(now)
        return None if line is None else line.head()

    def pop(self, now: float) -> Ticket | None:
        """Take the ticket that goes next, or None."""
        ticket = self.peek(now)
        if ticket is not None:
            self.take(ticket)
        return ticket

    def take(self, ticket: Ticket) -> None:
        """Take a waiting ticket whose turn it is: its job and its line have had theirs."""
        line = self._lines[ticket.forward_pass.priority, ticket.forward_pass.client]
        level = self._levels[line.priority]
        level.used = max(level.used, line.used)
        self.remove(ticket)
        line.end_turn(ticket.forward_pass.job)
        if level.heap and level.heap[0][2] is line:
            # behind its equals, as whoever had the last turn is the last of them
            heapq.heappop(level.heap)
            line.queued = False
            if line.count:
                self._enter(line)

    def pop_all(self) -> list[Ticket]:
        """Take out every ticket, in the order of arrival."""
        tickets = sorted(self._tickets.values(), key=lambda t: t.number)
        for ticket in tickets:
            self.remove(ticket)
        return tickets

    def remove(self, ticket: Ticket) -> bool:
        """Take out a ticket wherever it stands; return whether it was waiting."""
        if not self.waits(ticket):
            return False
        self._lines[ticket.forward_pass.priority, ticket.forward_pass.client].remove(ticket)
        self._forget_ticket(ticket)
        return True

    def charge(self, ticket: Ticket, hardware_s: float) -> None:
        """Count hardware time that a ticket's line has used."""
        p = ticket.forward_pass
        line = self._line(p.priority, p.client, 0.0)
        line.used += hardware_s / self.weight(p.client)

    def served(self, ticket: Ticket, now: float) -> None:
        """Note that rows of a ticket's line have run."""
        p = ticket.forward_pass
        self._line(p.priority, p.client, now).served_s = now

    def waits(self, ticket: Ticket) -> bool:
        """Say whether a ticket is here."""
        return self._tickets.get(ticket.forward_pass.pass_id) is ticket

    def _next_line(self, now: float) -> Line | None:
        longest = self._longest_waiting()
        if longest is None:
            return None
        if now - longest.served_s > self._longest_wait_s:
            return longest
        while True:
            heap = self._levels[self._highest()].heap
            used, turn, line = heap[0]
            if line.count and used == line.used:
                return line
            heapq.heappop(heap)
            line.queued = False
            if line.count:
                self._enter(line, turn)

    def _longest_waiting(self) -> Line | None:
        """Return the line from which nothing has run for the longest time, if any has passes."""
        while self._by_wait:
            served_s, _, line = self._by_wait[0]
            if line.count and served_s == line.served_s:
                return line
            heapq.heappop(self._by_wait)
            line.ageing = False
            if line.count:
                self._let_age(line)
        return None

    def _highest(self) -> int:
        """Return the highest priority at which a line is queued."""
        return max(priority for priority, level in self._levels.items() if level.heap)

    def _enter(self, line: Line, turn: int | None = None) -> None:
        """Let a line wait for its turn among those of its priority, behind its equals."""
        if not line.queued:
            line.queued = True
            self._turns += 1
            entry = (line.used, self._turns if turn is None else turn, line)
            heapq.heappush(self._levels[line.priority].heap, entry)

    def _let_age(self, line: Line) -> None:
        if not line.ageing:
            line.ageing = True
            self._turns += 1
            heapq.heappush(self._by_wait, (line.served_s, self._turns, line))

    def _forget_ticket(self, ticket: Ticket) -> None:
        p = ticket.forward_pass
        del self._tickets[p.pass_id]
        self.rows -= ticket.waiting_rows
        self.of_client[p.client] -= 1
        if self.of_client[p.client] == 0:
            del self.of_client[p.client]

    def _line(self, priority: int, client: str, now: float) -> Line:
        """Return a line, an empty one if there is none; forget those that are long unused."""
        line = self._lines.get((priority, client))
        if line is None:
            if len(self._lines) >= _REMEMBERED:
                self._forget(now)
            used = self._levels.setdefault(priority, Level()).used
            line = self._lines[priority, client] = Line(priority, client, used, now)
        return line

    def _forget(self, now: float) -> None:
        self._lines = {
            key: line
            for key, line in self._lines.items()
            if line.count or now - line.served_s < _FORGET_AFTER_S
        }

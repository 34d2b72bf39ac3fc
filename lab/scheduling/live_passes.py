"""The passes that wait or run on any system, by id."""

import asyncio

from lab.errors import Conflict, PassCancelled, UnknownName
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.finish import Outcome
from lab.scheduling.system_queue import SystemQueue
from lab.scheduling.ticket import AnyOutcome, Ticket


class LivePasses:
    """Queue checked passes and find them again; on the event loop's thread."""

    def __init__(self) -> None:
        self._tickets: dict[str, tuple[Ticket, SystemQueue]] = {}

    async def measure(self, queue: SystemQueue, checked: ForwardPass) -> Measurement:
        """Queue a checked pass and wait for its end."""
        outcome: Outcome[Measurement] = Outcome()
        ticket = self.put(queue, checked, outcome)
        try:
            return await outcome.end(lambda: queue.withdraw(ticket, PassCancelled))
        finally:
            self.forget(checked.pass_id)

    def put(self, queue: SystemQueue, checked: ForwardPass, outcome: AnyOutcome) -> Ticket:
        """Queue a checked pass, which ends with `outcome`; raise Conflict if its id is live."""
        if checked.pass_id in self._tickets:
            raise Conflict(f"a pass '{checked.pass_id}' is already queued")
        ticket = queue.put(checked, outcome)
        self._tickets[checked.pass_id] = ticket, queue
        return ticket

    def forget(self, pass_id: str) -> None:
        """Let go of a pass that has ended."""
        del self._tickets[pass_id]

    async def cancel(self, pass_id: str) -> None:
        """Cancel a pass and return when it has ended; raise UnknownName if none waits or runs."""
        ticket, queue = self._tickets.get(pass_id, (None, None))
        if ticket is None or queue is None or ticket.outcome.done():
            raise UnknownName(f"no pass '{pass_id}' waits or runs")
        ended = asyncio.Event()
        ticket.outcome.add_done_callback(lambda _: ended.set())
        queue.withdraw(ticket, PassCancelled)
        await ended.wait()

    def withdraw(self, pass_id: str) -> None:
        """Cancel a pass without waiting; nothing if it has ended."""
        if pass_id in self._tickets:
            ticket, queue = self._tickets[pass_id]
            queue.withdraw(ticket, PassCancelled)

    def withdraw_waited_for(self, outcome: AnyOutcome) -> None:
        """Cancel the pass that ends with `outcome`; nothing if it has ended."""
        for ticket, queue in self._tickets.values():
            if ticket.outcome is outcome:
                queue.withdraw(ticket, PassCancelled)
                return

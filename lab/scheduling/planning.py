"""What the hardware does next, and ahead of time what follows that."""

from collections.abc import Callable

from lab.scheduling.hardware import Hardware
from lab.scheduling.pass_queue import PassQueue
from lab.scheduling.ticket import HardwareCall, Portion, Ticket

_TOO_LATE_S = 5e-4  # before a call's end: its successor is then chosen after it


class Planning:
    """Make calls of the passes that wait; used on the event loop's thread.

    begins, finished: see `HardwareCall`. A plan is a call that the hardware begins by itself, in
    its own thread, once the running one has ended.
    """

    def __init__(
        self,
        hardware: Hardware,
        passes: PassQueue,
        slice_s: float,
        begins: Callable[[Ticket], object],
        finished: Callable[[Ticket], object],
    ) -> None:
        self._hardware, self._passes, self._slice_s = hardware, passes, slice_s
        self._begins, self._finished = begins, finished

    def next_call(self, now: float) -> HardwareCall:
        """Take passes from the queue until their rows fill a slice."""
        room = self._hardware.rows_in(self._slice_s)
        portions: list[Portion] = []
        while room > 0 and (ticket := self._passes.take(now)) is not None:
            rows = min(room, ticket.rows - ticket.done)
            portions.append(Portion(ticket, ticket.done + rows))
            room -= rows
        return self._call(portions)

    def plan(self, now: float) -> None:
        """Choose what follows the running call: now, so that the hardware does not wait for it.

        The pass goes on waiting until the hardware has begun the plan; whatever changes meanwhile
        may change it. None is made where others want a turn at the instruments in between, where
        rows share a call (more of them may come while it runs), or where the running call ends so
        soon that the loop had better put many short passes into the next one.
        """
        hardware = self._hardware
        running = hardware.running
        if running is None or hardware.is_shared or hardware.system.batch_rows > 1:
            return
        if not self.unplan() or running.expected_s < _TOO_LATE_S:
            return
        ticket = self._passes.peek(now)
        if ticket is not None:
            first = next((p.until for p in running.portions if p.ticket is ticket), ticket.done)
            until = min(ticket.rows, first + hardware.rows_in(self._slice_s))
            hardware.plan(self._call([Portion(ticket, until)]))

    def unplan(self) -> bool:
        """Take back what is planned; return whether the hardware has not begun it."""
        return self._hardware.unplan() is not None or self._hardware.planned is None

    def on_hardware(self) -> list[HardwareCall]:
        """Return the running call, and the planned one where it has begun unheard of."""
        calls = (self._hardware.running, self._hardware.planned)
        return [call for call in calls if call is not None]

    def _call(self, portions: list[Portion]) -> HardwareCall:
        return HardwareCall(portions, self._hardware.next_shot, self._begins, self._finished)

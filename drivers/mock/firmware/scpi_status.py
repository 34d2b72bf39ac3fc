"""The error queue and the status registers of a SCPI instrument, after SCPI-1999 and IEEE 488.2."""

from collections import deque

_EVENT_BIT = {1: 32, 2: 16, 3: 8, 4: 4}  # hundreds of the error number -> bit of *ESR?
_DEVICE_ERROR = 8
_OPERATION_COMPLETE = 1
_SUMMARY = 64


class ScpiError(Exception):
    """An entry of the error queue: its number and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f'{code},"{text}"')
        self.code = code


class Status:
    """One error queue with its event and service registers.

    `errors_at_most` entries fit; one more turns the last into -350. `event_enable` (`*ESE`) and
    `service_enable` (`*SRE`) are 0 to 255.
    """

    def __init__(self, errors_at_most: int = 20) -> None:
        self.event_enable = 0
        self.service_enable = 0
        self._errors: deque[ScpiError] = deque()
        self._errors_at_most = errors_at_most
        self._events = 0

    def report(self, error: ScpiError) -> None:
        """Put an error into the queue, and its class into the event register."""
        self._events |= _EVENT_BIT.get(-error.code // 100, _DEVICE_ERROR)
        if len(self._errors) < self._errors_at_most:
            self._errors.append(error)
        else:
            self._errors[-1] = ScpiError(-350, "Queue overflow")

    def complete(self) -> None:
        """Set the bit that `*OPC` asks for."""
        self._events |= _OPERATION_COMPLETE

    def clear(self) -> None:
        """Empty the queue and the event register (`*CLS`)."""
        self._errors.clear()
        self._events = 0

    def next_error(self) -> str:
        """Return the oldest error and remove it."""
        return str(self._errors.popleft()) if self._errors else '0,"No error"'

    def count_errors(self) -> str:
        """Return how many errors are queued."""
        return str(len(self._errors))

    def read_events(self) -> str:
        """Return the event register and clear it (`*ESR?`)."""
        events, self._events = self._events, 0
        return str(events)

    def read_byte(self) -> str:
        """Return the status byte: bit 2 errors, bit 5 events, bit 6 a service request (`*STB?`)."""
        byte = 4 * bool(self._errors) + 32 * bool(self._events & self.event_enable)
        return str(byte + _SUMMARY * bool(byte & self.service_enable))

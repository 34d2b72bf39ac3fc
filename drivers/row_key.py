"""The logical address of one measured row, from which simulated noise and drift follow."""

from dataclasses import dataclass

KEY_NUMBERS = 2**63  # streams and indices are below


@dataclass(frozen=True)
class RowKey:
    """Name a row independently of when and how often it is executed.

    stream: which noise stream (one per job or client), 0 <= stream < 2**63.
    index:  the row's number within its stream, 0 <= index < 2**63.
    time_s: simulated time at which drift is evaluated, in seconds since the bench was set up.

    Assigned when a pass is submitted; order of execution, retries, idle shots and other clients
    do not change it. Real instruments ignore it.
    """

    stream: int
    index: int
    time_s: float


def row_keys(
    stream: int, first: int, count: int, row_time_s: float, *, waited_s: float = 0.0
) -> list[RowKey]:
    """Return the keys of `count` successive rows that take `row_time_s` seconds each.

    waited_s: how long the bench stood idle before them, seconds.
    """
    return [RowKey(stream, i, i * row_time_s + waited_s) for i in range(first, first + count)]

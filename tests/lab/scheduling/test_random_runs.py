"""Whatever is submitted, cancelled, reserved and broken: what every pass and rig can rely on."""

import asyncio
import itertools
import logging
import threading
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import InstrumentTimeout, LimitError, ProtocolError
from lab.errors import (
    DeadlineMissed,
    PassCancelled,
    PassTimeout,
    QueueFull,
    ReservationLost,
    SystemClosed,
    SystemFaulted,
    SystemStopped,
)
from lab.measurement import Measurement
from random_runs import ROWS, Op, Run, configs, head_starts, operations, run, values_of
from virtual_rig import VirtualRig
from virtual_time import run_virtual


@settings(max_examples=120, deadline=None)
@given(operations, configs, head_starts, st.sampled_from([False, False, True]))
def test_every_pass_ends_once_with_its_own_rows_and_none_follows(
    ops: list[Op], config: dict[str, Any], head_starts: list[int], close_early: bool
) -> None:
    logging.disable()
    try:
        this = run_virtual(lambda: run(ops, config, head_starts, close_early))
    finally:
        logging.disable(logging.NOTSET)
    for number in range(len(this.clients)):
        check_rows(this, number)
        check_cause(this, number, close_early)
    for rig in this.rigs.values():
        check_rig(this, rig)
    check_nothing_is_left(this)


def check_rows(this: Run, number: int) -> None:
    """Its rows ran in order, each once but for one repetition, and none after its end."""
    asked, outcome = this.asked[number], this.outcomes[number]
    rig = this.rigs[asked["rig"]]
    mine = [(at, int(v) - 1 - ROWS * number) for at, v in enumerate(rig.rows) if owner(v) == number]
    rows = [row for _, row in mine]
    assert all(at < this.ended_at[number][asked["rig"]] for at, _ in mine), "a row after the end"
    assert all(b <= a + 1 for a, b in zip([-1, *rows], rows, strict=False)), "out of order"
    steps_back = sum(b <= a for a, b in itertools.pairwise(rows))
    assert steps_back <= (1 if asked["repeatable"] else 0)
    if isinstance(outcome, Measurement):
        x = values_of(number, asked["rows"])
        np.testing.assert_array_equal(outcome.y, np.concatenate([x, x / 2], axis=1))
        times = Counter(rows)
        for row in range(asked["rows"]):
            assert times[row] == 1 or (times[row] == 2 and outcome.retried[row])
        # a shot is the place of a row among all that went out; some may not have arrived
        assert np.all(np.diff(outcome.shots) > 0)
        assert set(np.flatnonzero(outcome.retried)) <= set(range(asked["rows"]))


def owner(value: float) -> int:
    return (int(value) - 1) // ROWS


def check_cause(this: Run, number: int, closed: bool) -> None:
    """An outcome has a cause: without cancel, fault, limit and close there is a measurement."""
    asked = this.asked[number]
    on_this_rig = [a["bad_row"] for a in this.asked if a["rig"] == asked["rig"] and a["bad_row"]]
    wrong = {what for _, what in on_this_rig}
    rig = this.rigs[asked["rig"]]
    match this.outcomes[number]:
        case Measurement():
            pass
        case PassCancelled():
            assert number in this.cancelled
        case asyncio.CancelledError():
            assert number in this.task_cancelled
        case DeadlineMissed():
            assert asked["deadline"] is not None
        case PassTimeout():
            assert asked["timeout"] is not None or "hangs" in wrong
        case ReservationLost():
            assert asked["reserved"]
        case QueueFull():
            pass  # judged in test_back_pressure.py
        case LimitError():
            assert asked["bad_row"] is not None
            assert asked["bad_row"][1] == "refused"
        case InstrumentTimeout():
            assert wrong & {"before", "during", "after"}
        case ProtocolError():
            assert "hangs" in wrong
        case SystemStopped():
            assert this.stops
        case SystemFaulted():
            # a recovery from a stop refuses as a fault does, before it has started anything
            assert wrong - {"refused"} or this.stops or len(rig.times("start")) > 1
        case SystemClosed():
            assert closed
        case other:
            raise AssertionError(f"unexpected outcome {other!r}")


def check_rig(this: Run, rig: VirtualRig) -> None:
    """Nobody misused it, it is safe, and its rows and shots add up."""
    name = rig.description.name
    assert not rig.misuse
    assert not rig.started or rig.events[-1][1] == "shutdown"
    [status] = [s for s in this.statuses if s.name == name]
    went_out = len(rig.rows) + rig.failed_before
    came_back = sum(len(call.values) for call in rig.calls if call.ended_s is not None)
    final = this.scheduler.status(name)
    assert final.next_shot == went_out
    assert final.rows_done == came_back
    assert (status.waiting, status.waiting_rows) == (0, 0)
    assert (final.waiting, final.waiting_rows, final.running) == (0, 0, [])
    done = [m for m in this.outcomes.values() if isinstance(m, Measurement) and m.system == name]
    shots = [shot for m in done for shot in m.shots.tolist()]
    assert len(shots) == len(set(shots)), "a shot number was used twice"
    assert all(0 <= shot < went_out for shot in shots)
    for call in rig.calls:
        keyed = [this.asked[owner(value)]["keyed"] for value in call.values]
        assert call.keys == ([int(value) for value in call.values] if keyed[0] else [])
        assert len(set(keyed)) == 1, "rows with and without keys in one call"


def check_nothing_is_left(this: Run) -> None:
    assert not this.left
    assert not [t.name for t in threading.enumerate() if t.name.startswith("hardware-")]

"""Callers who wait in threads of their own for what the event loop does."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from lab.errors import PassCancelled, SystemClosed, WrongThread
from lab.measurement import ForwardPass, Measurement
from lab.scheduling.live_passes import LivePasses
from lab.scheduling.system_queue import SystemQueue

Loop = asyncio.AbstractEventLoop | None
"""The scheduler's event loop, None before it was entered."""


def call_soon(loop: Loop, call: Callable[..., object], *arguments: Any) -> None:
    """Have the loop call something, from any thread; nothing where it is not there any more."""
    if loop is not None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all passes with it
            loop.call_soon_threadsafe(call, *arguments)


def refuse_own_thread(loop: Loop, system: str) -> None:
    """Raise WrongThread where the loop itself would have to wait."""
    if loop is not None and _running_loop() is loop:
        raise WrongThread(f"{system}: a blocking pass on the event loop's thread")


def queue_from_thread(
    loop: Loop,
    live: LivePasses,
    queue: SystemQueue,
    checked: ForwardPass,
    stopped: Callable[[], bool],
) -> Future[Measurement]:
    """Have the loop queue a checked pass, without waiting; see `measure_soon`."""
    outcome: Future[Measurement] = Future()
    if loop is None:
        raise SystemClosed(f"{queue.name} is closed")
    try:
        loop.call_soon_threadsafe(_take_over, live, queue, checked, stopped, outcome)
    except RuntimeError as error:
        raise SystemClosed(f"{queue.name}: the event loop has ended") from error
    return outcome


def wait_in_thread(loop: Loop, live: LivePasses, outcome: Future[Measurement]) -> Measurement:
    """Wait for the end of a pass that the loop queues; see `measure_blocking`."""
    try:
        return outcome.result()
    finally:
        if not outcome.done():  # an exception of this thread's own
            call_soon(loop, live.withdraw_waited_for, outcome)


def _take_over(
    live: LivePasses,
    queue: SystemQueue,
    checked: ForwardPass,
    stopped: Callable[[], bool],
    outcome: Future[Measurement],
) -> None:
    """Queue a checked pass of a caller who waits in another thread."""
    pass_id = checked.pass_id
    try:
        if stopped():
            raise PassCancelled(f"pass {pass_id} on {queue.name} ended before it was queued")
        live.put(queue, checked, outcome)
    except Exception as error:
        outcome.set_exception(error)
    else:
        outcome.add_done_callback(lambda _: live.forget(pass_id))


def _running_loop() -> Loop:
    """Return the event loop that runs in the calling thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

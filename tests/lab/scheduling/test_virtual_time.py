"""The virtual clock itself: time jumps, but never past a thread that works."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from virtual_time import EPOCH_S, Stuck, run_virtual, running_loop


def test_hours_pass_in_order_and_exactly() -> None:
    async def main() -> list[tuple[str, float]]:
        clock, seen = running_loop(), []

        async def wait(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, clock.time()))

        await asyncio.gather(wait("late", 7200.0), wait("early", 3600.0))
        return seen

    assert run_virtual(main) == [("early", 3600.0), ("late", 7200.0)]


def test_time_stands_still_while_a_thread_works_and_passes_while_it_sleeps() -> None:
    async def main() -> list[float]:
        clock = running_loop()
        seen: list[float] = []

        def instrument() -> None:
            for _ in range(3):
                sum(range(200_000))  # work that takes real time
                seen.append(clock.time())
                clock.sleep(10.0)

        with ThreadPoolExecutor(1) as executor:
            working = clock.run_in_executor(executor, instrument)
            await asyncio.sleep(25.0)
            seen.append(clock.time())
            await working
            return [*seen, clock.time()]

    assert run_virtual(main) == [0.0, 10.0, 20.0, 25.0, 30.0]


def test_threads_that_sleep_side_by_side_wake_in_the_order_of_their_times() -> None:
    async def main() -> list[float]:
        clock = running_loop()
        seen: list[float] = []

        def instrument(seconds: float) -> None:
            for _ in range(50):
                clock.sleep(seconds)
                seen.append(clock.time())

        with ThreadPoolExecutor(3) as executor:
            periods = (1.0, 1.5, 0.25)
            await asyncio.gather(*(clock.run_in_executor(executor, instrument, p) for p in periods))
        return seen

    times = run_virtual(main)
    assert len(times) == 150
    assert times == sorted(times)


def test_the_loop_can_be_given_a_head_start_before_a_job_begins() -> None:
    async def main() -> list[str]:
        clock, seen = running_loop(), []
        clock.turns_before_work = lambda: 5
        with ThreadPoolExecutor(1) as executor:
            job = clock.run_in_executor(executor, seen.append, "job")
            for _ in range(4):
                await asyncio.sleep(0)
                seen.append("loop")
            await job
        return seen

    assert run_virtual(main) == ["loop"] * 4 + ["job"]


def test_a_run_that_would_never_end_says_so() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match="nothing is left to wait for"):
        run_virtual(main)


@pytest.mark.usefixtures("virtual_time")
async def test_the_wall_clock_follows() -> None:
    before = time.time()
    await asyncio.sleep(1000.0)
    assert before == EPOCH_S
    assert time.time() == EPOCH_S + 1000.0

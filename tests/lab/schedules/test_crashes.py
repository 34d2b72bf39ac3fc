"""Services that look after the same schedule and die at any moment."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.jobs.schedules.clock import ScheduleClock
from lab.jobs.schedules.launching import moment, tick_order
from lab.jobs.schedules.records import ScheduleRecord
from lab.jobs.schedules.store import ScheduleStore
from lab.jobs.store import Store


class Died(BaseException):
    """The service was killed here."""


class Ledger(ScheduleStore):
    """A store that remembers which ticks were claimed, and kills who is about to note a job."""

    def __init__(self, database: Any) -> None:
        super().__init__(database)
        self.claimed: list[float] = []
        self.deadly = False

    def claim(self, seen: ScheduleRecord, tick_s: float, now_s: float) -> bool:
        done = super().claim(seen, tick_s, now_s)
        self.claimed += [tick_s] if done else []
        return done

    def launched(self, *given: Any, **options: Any) -> bool:
        if self.deadly:
            raise Died
        return super().launched(*given, **options)


# how long nobody looks, who does then, and where they die
looks = st.tuples(
    st.integers(1, 2000), st.integers(1, 3), st.sampled_from(["", "", "before", "after", "noting"])
)


@settings(max_examples=20, deadline=None)
@given(st.lists(looks, min_size=1, max_size=15))
def test_every_claimed_tick_gets_its_one_job(jobs_and_wall, schedule, steps):
    jobs, wall = jobs_and_wall()
    with TemporaryDirectory() as folder, Store(Path(folder)) as store:
        ledger = Ledger(store.database)
        ledger.add(schedule(cron="*/5 * * * *", overlap="queue"))
        for pause_s, hosts, death in [*steps, (20, 1, ""), (20, 1, "")]:
            wall.now += timedelta(seconds=pause_s)
            arm(jobs, ledger, death)
            clocks = [ScheduleClock(ledger, jobs, wall) for _ in range(hosts)]
            asyncio.run(look_all(clocks))
        keys = [tick_order(schedule(), moment(tick_s)).key for tick_s in ledger.claimed]
        assert sorted(jobs.keys) == sorted(keys)
        assert max(Counter(keys).values(), default=0) <= 1
        assert ledger.get("refit").jobs == tuple(jobs.orders)[:-6:-1]
        assert ledger.get("refit").launching_s is None


def arm(jobs, ledger: Ledger, death: str) -> None:
    def die(config: object) -> None:
        raise Died

    def live(config: object) -> None:
        pass

    jobs.before = die if death == "before" else live
    jobs.after = die if death == "after" else live
    ledger.deadly = death == "noting"


async def look_all(clocks: list[ScheduleClock]) -> None:
    outcomes = await asyncio.gather(*map(survive, clocks))
    assert len(outcomes) == len(clocks)


async def survive(clock: ScheduleClock) -> None:
    try:
        await clock.look()
    except Died:
        return

"""The task that looks at the clock: what it starts, when, and what it does when things go wrong."""

import asyncio
import itertools
from contextlib import suppress

import pytest
from sqlalchemy.exc import OperationalError

from lab.errors import ConfigError, DatabaseAway, SystemClosed
from lab.jobs.records import FitConfig, Order
from lab.jobs.schedules.clock import LONGEST_PAUSE_S, TAKEOVER_S, ScheduleClock

pytestmark = pytest.mark.anyio

NOON = "2026-11-22T13:00:00+00:00"  # the first tick: 14:00 in Zurich


class Died(BaseException):
    """The service was killed here."""


@pytest.fixture
def clock(store, jobs, wall) -> ScheduleClock:
    return ScheduleClock(store, jobs, wall, wall.pause)


@pytest.fixture
def other(store, jobs, wall) -> ScheduleClock:
    """Return the clock of another service on the same database."""
    return ScheduleClock(store, jobs, wall, wall.pause)


async def test_a_tick_starts_the_schedules_job_once(clock, store, schedule, jobs, wall):
    store.add(schedule())
    await clock.look()
    assert jobs.orders == {}
    wall.go(hours=1)
    for _ in range(3):
        await clock.look()
        wall.go(seconds=1)
    origin = "schedule refit, tick 2026-11-22T14:00:00+01:00"
    key = f"schedule:refit:{NOON}"
    assert jobs.orders == {"job1": Order("ann", key, ("nightly",), origin)}
    assert jobs.configs == [FitConfig(rows=40)]
    assert jobs.configs[0].model_fields_set == {"rows"}  # the rest is chosen when it starts
    assert store.get("refit").jobs == ("job1",)


async def test_two_services_run_each_tick_once(clock, other, store, schedule, jobs, wall):
    for name in ("a", "b", "c"):
        store.add(schedule(name, overlap="queue"))
    for _ in range(5):
        await asyncio.gather(clock.look(), other.look())
        wall.go(minutes=30)
    ticks = (NOON, "2026-11-22T14:00:00+00:00")
    assert sorted(jobs.keys) == [f"schedule:{name}:{tick}" for name in "abc" for tick in ticks]
    assert sorted(job for s in store.all() for job in s.jobs) == sorted(jobs.orders)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_service_that_dies_in_between_leaves_the_tick_to_another(
    clock, other, store, schedule, jobs, wall, moment
):
    def die(config: FitConfig) -> None:
        raise Died

    store.add(schedule())
    wall.go(hours=1)
    setattr(jobs, moment, die)
    with pytest.raises(Died):
        await clock.look()
    setattr(jobs, moment, lambda config: None)
    await other.look()
    assert store.get("refit").launching_s is not None  # it may be alive, and slow
    wall.go(seconds=TAKEOVER_S + 1)
    await other.look()
    await clock.look()
    assert jobs.keys == [f"schedule:refit:{NOON}"]
    assert store.get("refit").jobs == ("job1",)
    assert store.get("refit").launching_s is None


async def test_a_slow_service_and_the_one_that_took_over_start_one_job(
    clock, other, store, schedule, jobs, wall
):
    def wait_long(config: FitConfig) -> None:
        jobs.before = lambda config: None
        wall.go(seconds=TAKEOVER_S + 1)

    store.add(schedule())
    wall.go(hours=1)
    jobs.before = wait_long
    await asyncio.gather(clock.look(), other.look())
    await other.look()
    assert len(jobs.orders) == 1
    assert store.get("refit").jobs == ("job1",)


async def test_one_that_cannot_start_is_told_and_the_others_go_on(
    clock, store, schedule, jobs, wall
):
    def refuse(config: FitConfig) -> None:
        if config.rows == 50:
            raise ConfigError("kind: this bench has no such twin")

    store.add(schedule("a", config={"rows": 50}))
    store.add(schedule("b"))
    store.add(schedule("c", config={"rows": 1}))
    store.add(schedule("d", time_zone="Atlantic/Atlantis"))
    store.add(schedule("e"))
    jobs.before = refuse
    wall.go(hours=1)
    await clock.look()
    a, b, c, d, e = store.all()
    told = "tick 2026-11-22T14:00:00+01:00: ConfigError: kind: this bench has no such twin"
    assert (a.error, a.jobs) == (told, ())
    assert "rows" in c.error
    assert "there is no 'Atlantic/Atlantis'" in d.error
    assert (b.error, b.jobs, e.jobs) == ("", ("job1",), ("job2",))
    jobs.before = lambda config: None
    wall.go(hours=1)
    await clock.look()
    assert (store.get("a").error, store.get("a").jobs) == ("", ("job3",))


async def test_no_job_starts_beside_its_predecessor(clock, store, schedule, jobs, wall):
    store.add(schedule())
    wall.go(hours=1)
    await clock.look()
    for state in ("pending", "running"):
        jobs.turn("job1", state)
        wall.go(hours=1)
        await clock.look()
        note = f"skipped: job job1 is {state}"
        assert store.get("refit").note.endswith(note)
    jobs.turn("job1", "failed")
    wall.go(minutes=59)
    await clock.look()
    assert len(jobs.orders) == 1  # what was skipped does not come late
    wall.go(minutes=1)
    await clock.look()
    assert store.get("refit").jobs == ("job2", "job1")
    assert store.get("refit").note == ""
    jobs.forget("job2")
    wall.go(hours=1)
    await clock.look()
    assert len(jobs.orders) == 3


async def test_jobs_queue_where_that_is_asked_for(clock, store, schedule, jobs, wall):
    store.add(schedule(overlap="queue"))
    for _ in range(3):
        wall.go(hours=1)
        await clock.look()
    assert len(jobs.orders) == 3


@pytest.mark.parametrize(
    ("missed", "run", "note"),
    [("once", ["2026-11-22T22:00:00+00:00"], ""), ("skip", [], "T23:00:00+01:00 was missed")],
)
async def test_after_an_outage_the_newest_tick_runs_or_none(
    clock, store, schedule, jobs, wall, missed, run, note
):
    store.add(schedule(missed=missed))
    wall.go(hours=10, minutes=5)
    await clock.look()
    await clock.look()
    assert jobs.keys == [f"schedule:refit:{tick}" for tick in run]
    assert store.get("refit").note.endswith(note)


async def test_a_paused_schedule_waits_and_goes_on_from_then(clock, store, schedule, jobs, wall):
    store.add(schedule())
    store.pause("refit")
    wall.go(hours=3)
    await clock.look()
    store.go_on("refit", wall.now.timestamp())
    wall.go(minutes=59)
    await clock.look()
    assert jobs.orders == {}
    wall.go(minutes=1)
    await clock.look()
    assert len(jobs.orders) == 1


@pytest.mark.parametrize("back", [{"hours": -1}, {"hours": -20}, {"days": -40}])
async def test_a_clock_that_is_set_back_starts_nothing_again(
    clock, store, schedule, jobs, wall, back
):
    store.add(schedule(overlap="queue"))
    wall.go(hours=1)
    await clock.look()
    before, keys = wall.now, jobs.keys
    wall.go(**back)
    await clock.look()
    wall.now = before
    await clock.look()
    assert jobs.keys == keys
    wall.go(hours=1)
    await clock.look()
    assert len(jobs.keys) == 2


async def test_a_clock_that_was_far_ahead_starts_one_job_and_goes_on(
    clock, store, schedule, jobs, wall
):
    store.add(schedule(overlap="queue"))
    wall.go(days=4000)
    for _ in range(3):
        await clock.look()
    assert len(jobs.orders) == 1
    wall.go(days=-4000)
    await clock.look()
    assert len(jobs.orders) == 1
    wall.go(hours=1)
    await clock.look()
    assert jobs.keys[1:] == [f"schedule:refit:{NOON}"]


@pytest.mark.parametrize("why", [SystemClosed("it is stopping"), DatabaseAway("full disk", 5.0)])
async def test_a_tick_that_cannot_be_kept_now_is_not_given_up(
    clock, other, store, schedule, jobs, wall, why
):
    def closed(config: FitConfig) -> None:
        raise why

    store.add(schedule())
    wall.go(hours=1)
    jobs.before = closed
    with suppress(DatabaseAway):
        await clock.look()
    assert store.get("refit").error == ""
    jobs.before = lambda config: None
    wall.go(seconds=TAKEOVER_S + 1)
    await other.look()
    assert jobs.keys == [f"schedule:refit:{NOON}"]


async def test_a_schedule_that_is_removed_meanwhile_is_gone(clock, store, schedule, jobs, wall):
    store.add(schedule())
    store.add(schedule("zzz"))
    jobs.before = lambda config: store.remove("refit") if len(store.all()) == 2 else None
    wall.go(hours=1)
    await clock.look()
    assert [s.name for s in store.all()] == ["zzz"]
    assert store.get("zzz").jobs == ("job2",)


async def test_it_wakes_at_the_tick_and_every_few_seconds(store, schedule, jobs, wall):
    store.add(schedule(cron="*/2 * * * *", overlap="queue"))
    pauses = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        wall.go(seconds=seconds)
        if len(jobs.orders) == 2:
            raise Died

    started = []
    jobs.before = lambda config: started.append(wall.now)
    with pytest.raises(Died):
        await ScheduleClock(store, jobs, wall, pause).run()
    assert max(pauses) <= LONGEST_PAUSE_S
    assert [moment.strftime("%H:%M:%S") for moment in started] == ["12:02:00", "12:04:00"]


async def test_it_goes_on_when_the_database_is_back(
    clock, store, schedule, jobs, wall, monkeypatch
):
    store.add(schedule())
    looks = itertools.count()
    every = store.all

    def sometimes():
        if next(looks) < 3:
            raise OperationalError("SELECT", {}, Exception("the server is away"))
        return every()

    def enough(config: FitConfig) -> None:
        raise Died

    monkeypatch.setattr(store, "all", sometimes)
    jobs.after = enough
    wall.go(hours=1)
    with pytest.raises(Died):
        await clock.run()
    assert jobs.keys == [f"schedule:refit:{NOON}"]

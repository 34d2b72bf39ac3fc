"""Schedules in the database, where several services may look after the same ones."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from lab.errors import Conflict, UnknownName

HOUR = 3600.0


def test_a_schedule_comes_back_as_it_was_kept(store, schedule):
    kept = schedule(config={"task": "vowels", "twin": {"rows": 40}}, kind="train")
    store.add(kept)
    store.add(schedule("again"))
    assert store.get("refit") == kept
    assert [s.name for s in store.all()] == ["again", "refit"]


def test_a_name_is_taken_once(store, schedule):
    store.add(schedule())
    with pytest.raises(Conflict, match="there is a schedule 'refit' already"):
        store.add(schedule(cron="5 * * * *"))
    assert store.get("refit") == schedule()


def test_what_is_not_there_is_named(store):
    for touch in (store.get, store.remove, store.pause, lambda name: store.go_on(name, 1.0)):
        with pytest.raises(UnknownName, match="no schedule 'refit'"):
            touch("refit")
    with pytest.raises(UnknownName, match="no schedule 'refit'"):
        store.add_job("refit", "a")


def test_one_of_many_claims_a_tick(store, schedule):
    store.add(schedule())
    seen = store.get("refit")
    tick_s = seen.handled_s + HOUR
    together = Barrier(4)

    def claim(host: int) -> bool:
        together.wait()
        return store.claim(seen, tick_s, tick_s + host)

    with ThreadPoolExecutor(4) as hosts:
        claimed = list(hosts.map(claim, range(4)))
    assert sum(claimed) == 1
    now = store.get("refit")
    assert (now.handled_s, now.launching_s) == (tick_s, tick_s)
    assert now.claimed_s == tick_s + claimed.index(True)


def test_a_claimed_tick_is_noted_once(store, schedule):
    store.add(schedule())
    seen = store.get("refit")
    store.claim(seen, 7.0, 8.0)
    assert store.launched(seen, 7.0, job="a") is True
    assert store.launched(seen, 7.0, error="late") is False
    assert store.launched(seen, 6.0, error="another tick") is False
    now = store.get("refit")
    assert (now.launching_s, now.claimed_s, now.error, now.jobs) == (None, None, "", ("a",))


def test_what_was_read_before_a_change_changes_nothing(store, schedule):
    store.add(schedule())
    seen = store.get("refit")
    assert store.skip(seen, seen.handled_s + HOUR, "why")
    assert store.get("refit").note == "why"
    assert not store.claim(seen, seen.handled_s + 2 * HOUR, 0.0)
    assert not store.skip(seen, seen.handled_s + 2 * HOUR)
    store.remove("refit")
    store.add(schedule(created_s=1.0))
    assert not store.claim(seen, seen.handled_s + HOUR, 0.0)  # another one of the same name
    assert store.get("refit") == schedule(created_s=1.0)


def test_a_paused_schedule_claims_nothing_and_goes_on_from_now(store, schedule):
    store.add(schedule())
    store.pause("refit")
    paused = store.get("refit")
    assert paused == replace(schedule(), paused=True)
    assert not store.claim(paused, paused.handled_s + HOUR, 0.0)
    store.go_on("refit", 9e9)
    store.go_on("refit", 9.5e9)  # it runs already
    assert store.get("refit") == replace(schedule(), handled_s=9e9)


def test_the_newest_jobs_are_listed_and_go_with_their_schedule(store, schedule):
    store.add(schedule())
    for number in range(7):
        store.add_job("refit", f"job{number}")
    assert store.get("refit").jobs == ("job6", "job5", "job4", "job3", "job2")
    store.remove("refit")
    store.add(schedule())
    assert store.get("refit").jobs == ()


def test_a_job_that_was_asked_for_twice_at_once_is_noted_once(store, schedule):
    store.add(schedule())
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: store.add_job("refit", "a"), range(8)))
    assert store.get("refit").jobs == ("a",)

"""What the sweep does with jobs of which store and engine tell different things."""

import itertools
import time
from types import SimpleNamespace

import pytest

from lab.jobs import housekeeping
from lab.jobs.records import Order
from lab.jobs.store import Store
from lab.jobs.sweeping import UNCLAIMED_S, Unclaimed, sweep
from lab.jobs.tables import jobs


class Engine:
    """An engine that says of each run what it is told to, and notes what is queued."""

    def __init__(self, **states: str) -> None:
        self.known = {(job, 1): state for job, state in states.items()}
        self.queued: list[tuple[str, int]] = []

    def states(self, runs):
        return {run: self.known[run] for run in runs if run in self.known}

    def enqueue(self, queue: str, job_id: str, run: int, priority: int) -> None:
        self.queued.append((job_id, run))
        self.known[job_id, run] = "waiting"


@pytest.fixture
def store(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        yield store


def test_a_run_that_was_handed_to_a_host_that_died_before_its_claim_is_queued_again(store):
    """The engine says that it runs, and waits for that host to come back."""
    now = [0.0]
    unclaimed = Unclaimed(clock=lambda: now[0])
    engine = Engine(lost="running", waits="waiting", works="running")
    for job in ("lost", "waits", "works"):
        store.add_job(job, "train", {}, Order(), queue="anywhere")
    while now[0] < UNCLAIMED_S:
        assert engine.queued == []
        sweep(store, engine, ["anywhere"], lambda job: None, unclaimed)
        store.claim_job("works", 1, "here")
        now[0] += 2.0
    sweep(store, engine, ["anywhere"], lambda job: None, unclaimed)
    sweep(store, engine, ["anywhere"], lambda job: None, unclaimed)
    assert engine.queued == [("lost", 2)]
    assert store.claim_job("lost", 1, "late") is None
    assert store.claim_job("lost", 2, "here").state == "running"


def test_a_run_that_is_claimed_at_the_last_moment_is_let_alone(store, monkeypatch):
    now = [0.0]
    unclaimed = Unclaimed(clock=lambda: now[0])
    engine = Engine(slow="running")
    store.add_job("slow", "train", {}, Order(), queue="anywhere")
    sweep(store, engine, ["anywhere"], lambda job: None, unclaimed)
    now[0] = UNCLAIMED_S
    found = store.unfinished_jobs

    def claimed_since(queues=None):
        records = found(queues)
        assert store.claim_job("slow", 1, "there")
        return records

    monkeypatch.setattr(store, "unfinished_jobs", claimed_since)
    sweep(store, engine, ["anywhere"], lambda job: None, unclaimed)
    assert engine.queued == []
    assert store.job("slow").run == 1


def test_of_many_that_wait_only_those_are_looked_at_with_which_something_may_be_the_case(store):
    now_s = time.time()
    engine = Engine()
    for job in ("waits", "new", "late", "begun", "continued"):
        store.add_job(job, "train", {"deadline_s": now_s if job == "late" else None}, queue="q")
    made = jobs.update().where(jobs.c.id != "new").values(created_s=now_s - 3600)
    store.database.change(made)
    claimed = store.claim_job("begun", 1, "here")
    store.hand_back("begun", claimed.attempt)
    store.settle_pending("continued", "cancelled", "")
    assert store.continue_job("continued", {}) == 2
    sweep(store, engine, ["q"], lambda job: None, Unclaimed(), whole=False)
    assert sorted(engine.queued) == [("begun", 1), ("continued", 2), ("new", 1)]
    assert store.job("late").state == "failed"
    sweep(store, engine, ["q"], lambda job: None, Unclaimed())
    assert sorted(engine.queued) == [("begun", 1), ("continued", 2), ("new", 1), ("waits", 1)]


def test_after_a_long_freeze_all_jobs_are_looked_at_again_soon(monkeypatch):
    """A sweep that took an hour was not at work for an hour."""
    now, wholes, takes_s = [0.0], [], [3600.0]

    def swept(*arguments: object, whole: bool) -> None:
        wholes.append(whole)
        now[0] += takes_s.pop() if takes_s else 0.0

    monkeypatch.setattr(housekeeping, "sweep", swept)
    monkeypatch.setattr(housekeeping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    board = SimpleNamespace(tell=None)
    keeper = housekeeping.Housekeeper(None, None, board, None, None, (), None)
    for _ in range(2):
        keeper._sweep()
        now[0] += 600.0
    keeper._sweep()
    assert wholes == [True, True, True]


def test_a_hurry_during_a_sweep_has_all_jobs_looked_at_in_the_next_one(monkeypatch):
    wholes = []
    now = itertools.count()

    def swept(*arguments: object, whole: bool) -> None:
        wholes.append(whole)
        if len(wholes) == 1:
            keeper.hurry()

    monkeypatch.setattr(housekeeping, "sweep", swept)
    monkeypatch.setattr(housekeeping, "time", SimpleNamespace(monotonic=lambda: next(now)))
    board = SimpleNamespace(tell=None, on_loop=lambda call: None)
    keeper = housekeeping.Housekeeper(None, None, board, None, None, (), None)
    for _ in range(3):
        keeper._sweep()
    assert wholes == [True, True, False]

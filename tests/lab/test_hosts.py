"""Services that share a database: who has died, whose name it is, whose rows count."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import lab.jobs.database
import lab.jobs.job_desk
from drivers.row_key import row_keys
from lab.errors import ConfigError, PassCancelled, QueueFull, Superseded
from lab.jobs.database import open_database
from lab.jobs.desk import Assignment
from lab.jobs.fence import Fence
from lab.jobs.hosts import DEAD_AFTER_S, HostBook, KnownSystem, Watch
from lab.jobs.housekeeping import Housekeeper
from lab.jobs.identity import hold_identity
from lab.jobs.job_desk import JobDesk
from lab.jobs.live_job import LiveJob, Turns
from lab.jobs.records import FitConfig, Order
from lab.jobs.runner import JobRunner
from lab.jobs.store import Store
from lab.jobs.tables import jobs
from lab.measurement import ForwardPass, Measurement
from lab.recording.recorder import RowRecorder
from recorded_passes import described, measured

LIMIT_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def watched(looks: list[tuple[float, dict[str, int]]], wanted: str = "a") -> list[bool]:
    """Return after each look (seconds since the one before, beats) whether `wanted` is dead."""
    clock = Clock()
    watch, dead = Watch(clock=clock), []
    for seconds, beats in looks:
        clock.now_s += seconds
        dead.append(wanted in watch.look(beats, {wanted}))
    return dead


def test_who_stands_still_is_dead_after_a_while():
    still = [(2.0, {"a": 7})] * 8
    assert watched(still) == [False] * 6 + [True] * 2


def test_who_is_not_in_the_book_is_dead_after_the_same_while():
    assert watched([(2.0, {})] * 8) == [False] * 6 + [True] * 2


def test_who_beats_again_is_alive():
    assert watched([(2.0, {"a": 7})] * 8 + [(2.0, {"a": 8})] * 3)[-3:] == [False] * 3


def test_who_was_blind_for_a_while_starts_anew():
    """The database was away: nobody's number could move."""
    looks = [(2.0, {"a": 7})] * 3 + [(60.0, {"a": 7})] + [(2.0, {"a": 7})] * 5
    assert not any(watched(looks))


@given(st.lists(st.tuples(st.floats(0.5, 5.9), st.integers(0, 1)), max_size=60))
def test_nobody_who_beats_often_enough_is_ever_dead(steps):
    """Whatever the rhythm of looks, as long as the number moves within DEAD_AFTER_S."""
    looks, number, since_s = [], 0, 0.0
    for seconds, beat in steps:
        since_s += seconds
        if beat or since_s + 6.0 >= DEAD_AFTER_S:
            number, since_s = number + 1, 0.0
        looks.append((seconds, {"a": number}))
    assert not any(watched(looks))


def system(**fields) -> KnownSystem:
    values = {"name": "optics", "host": "a", "url": "http://a:1", "family": "optics"}
    return KnownSystem(**{**values, "bench": "b" * 64, "simulated": True, **fields})


def test_services_find_each_others_systems(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        book = HostBook(store.database)
        book.enter("a", {"optics": system()}, "")
        assert book.systems()["optics"].url == ""
        book.enter("a", {"optics": system()}, "http://a:2")
        book.enter("b", {"plate": system(name="plate", host="b")}, "http://b:1")
        assert {name: (s.host, s.url) for name, s in book.systems().items()} == {
            "optics": ("a", "http://a:2"),
            "plate": ("b", "http://b:1"),
        }
        book.beat("a")
        assert book.beats() == {"a": 1, "b": 0}


def test_a_name_has_one_living_service(tmp_path, postgres_url):
    first, second = (open_database(tmp_path, postgres_url) for _ in range(2))
    with hold_identity(first, "bench", pytest.fail):
        with (
            pytest.raises(ConfigError, match="host name 'bench': another service"),
            hold_identity(second, "bench", pytest.fail),
        ):
            pass
        with hold_identity(second, "other", pytest.fail):
            pass
    with hold_identity(second, "bench", pytest.fail):
        pass
    for database in (first, second):
        database.engine.dispose()


def cut_connections(url: str, name: str) -> None:
    """End the connections with advisory locks, as a restart of the server would."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
    engine.dispose()


def test_a_name_that_was_lost_with_the_connection_is_taken_again(
    tmp_path, postgres_url, monkeypatch, caplog
):
    monkeypatch.setattr("lab.jobs.identity._LOOK_EVERY_S", 0.05)
    first, second = (open_database(tmp_path, postgres_url) for _ in range(2))
    with hold_identity(first, "bench", pytest.fail):
        cut_connections(postgres_url, "bench")
        until = threading.Event()
        while "it is ours again" not in caplog.text:
            assert not until.wait(0.02)
        with (
            pytest.raises(ConfigError, match="another service"),
            hold_identity(second, "bench", pytest.fail),
        ):
            pass
    for database in (first, second):
        database.engine.dispose()


def test_who_finds_its_name_taken_is_told(tmp_path, postgres_url, monkeypatch):
    monkeypatch.setattr("lab.jobs.identity._LOOK_EVERY_S", 0.5)
    first, second = (open_database(tmp_path, postgres_url) for _ in range(2))
    told = threading.Event()
    with hold_identity(first, "bench", lambda reason: told.set()):
        cut_connections(postgres_url, "bench")
        with hold_identity(second, "bench", pytest.fail):  # before the first looks again
            assert told.wait(LIMIT_S)
    for database in (first, second):
        database.engine.dispose()


def rows_of(whole: Measurement, rows: slice) -> Measurement:
    names = ("y", "saturated", "retried", "out_of_sync", "shots", "row_s")
    return replace(whole, **{n: getattr(whole, n)[rows] for n in names})


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[RowRecorder]:
    with RowRecorder(
        tmp_path / "rows", lambda name: described(), bench="", ended=lambda job: False
    ) as recorder:
        yield recorder


class Noted:
    """A scheduler that notes what it is given; ends: how the next passes end."""

    def __init__(self) -> None:
        self.given: list[ForwardPass] = []
        self.cancelled: list[str] = []
        self.ends: Measurement | BaseException | None = None

    async def submit(self, forward_pass: ForwardPass) -> Measurement | None:
        self.given.append(forward_pass)
        if isinstance(self.ends, BaseException):
            raise self.ends
        return self.ends

    async def cancel(self, pass_id: str) -> None:
        self.cancelled.append(pass_id)


@pytest.mark.anyio
async def test_rows_of_an_attempt_that_does_not_count_reach_no_instrument(tmp_path, database_url):
    rows = np.zeros((1, 2))
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "train", {}, Order())
        first = store.claim_job("a", 1, "w1")
        scheduler = Noted()
        fence = Fence(store, scheduler)
        old = ForwardPass("optics", rows, rows, job="a", attempt=first.attempt)
        await fence.measure(old)
        assert store.take_over("a", 1, "w1")
        with pytest.raises(Superseded, match="attempt 1 does not count"):
            await fence.measure(old)
        second = store.claim_job("a", 2, "w2")
        await fence.measure(ForwardPass("optics", rows, rows, job="a", attempt=second.attempt))
        await fence.measure(ForwardPass("optics", rows, rows, job="a"))  # no job of the service's
        assert [p.attempt for p in scheduler.given] == [1, second.attempt, 0]


@pytest.mark.anyio
async def test_what_an_attempt_has_measured_the_next_one_does_not(tmp_path, database_url, recorder):
    """Whole passes, and of one whose client has gone the rows that it had."""
    keys = row_keys(3, 0, 5, 0.25)
    forward_pass, whole = measured(0, 5, job="a", stream=3)
    scheduler = Noted()
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "train", {}, Order())
        fence = Fence(store, scheduler, recorder)
        first = store.claim_job("a", 1, "w1")
        gone = asyncio.CancelledError()
        gone.__cause__ = PassCancelled("ended after 2 of 5 rows")
        gone.__cause__.measured = rows_of(whole, slice(0, 2))
        scheduler.ends = gone
        with pytest.raises(asyncio.CancelledError):
            await fence.measure(replace(forward_pass, attempt=first.attempt))
        store.take_over("a", 1, "w1")
        second = store.claim_job("a", 2, "w2")
        scheduler.ends = rows_of(whole, slice(2, 5))
        found = await fence.measure(replace(forward_pass, attempt=second.attempt))
        assert list(scheduler.given[-1].keys) == list(keys[2:])
        np.testing.assert_array_equal(found.y, whole.y)


class Slow(Noted):
    """A scheduler whose passes go on until they are cancelled, each with `had` of its rows."""

    def __init__(self, whole: Measurement, had: int) -> None:
        super().__init__()
        self.whole, self.had = whole, had
        self.under_way: dict[str, asyncio.Future[None]] = {}
        self.begun = asyncio.Event()

    async def submit(self, forward_pass: ForwardPass) -> Measurement:
        self.given.append(forward_pass)
        end = self.under_way[forward_pass.pass_id] = asyncio.get_running_loop().create_future()
        self.begun.set()
        await end
        error = PassCancelled("ended")
        error.measured = rows_of(self.whole, slice(0, min(self.had, len(forward_pass.x))))
        raise error

    async def cancel(self, pass_id: str) -> None:
        self.cancelled.append(pass_id)
        self.under_way[pass_id].set_result(None)
        await asyncio.sleep(0)  # until its caller has heard of it


@pytest.mark.anyio
async def test_rows_that_an_old_attempt_measures_until_it_is_cancelled_are_known(
    tmp_path, database_url, recorder
):
    """And the passes of every older attempt are cancelled, not only those of the first."""
    forward_pass, whole = measured(0, 5, job="a", stream=3)
    scheduler = Slow(whole, 2)
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "train", {}, Order())
        fence = Fence(store, scheduler, recorder)
        asking = []
        for run in (1, 2, 3):
            attempt = store.claim_job("a", run, "w").attempt
            scheduler.begun.clear()
            ours = replace(forward_pass, attempt=attempt, pass_id=f"of attempt {attempt}")
            asking.append(asyncio.ensure_future(fence.measure(ours)))
            async with asyncio.timeout(LIMIT_S):
                await scheduler.begun.wait()
            if run < 3:
                store.take_over("a", run, "w")
        assert scheduler.cancelled == [p.pass_id for p in scheduler.given[:2]]
        assert [len(p.x) for p in scheduler.given] == [5, 3, 1]
        await scheduler.cancel(scheduler.given[2].pass_id)
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(error) for error in ended] == [PassCancelled] * 3


@pytest.mark.anyio
async def test_what_looks_at_a_device_measures_all_rows_again(tmp_path, database_url, recorder):
    """They are to be of one time."""
    forward_pass, whole = measured(0, 5, job="a", stream=3)
    scheduler = Noted()
    scheduler.ends = whole
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "evaluate", {}, Order())
        fence = Fence(store, scheduler, recorder)
        for run in (1, 2):
            attempt = store.claim_job("a", run, "w").attempt
            await fence.measure(replace(forward_pass, attempt=attempt))
            store.take_over("a", run, "w")
        assert [len(p.x) for p in scheduler.given] == [5, 5]


def test_a_job_is_taken_over_once_and_only_from_its_host(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "train", {}, Order())
        record = store.claim_job("a", 1, "w1")
        assert not store.take_over("a", 1, "w2")
        assert store.take_over("a", 1, "w1")
        assert not store.take_over("a", 1, "w1")
        assert store.claim_job("a", 1, "w1") is None  # the run that the dead one had
        with pytest.raises(Superseded):
            store.add_metric("a", 1, {}, record.attempt)
        with pytest.raises(Superseded):
            store.end_job("a", "succeeded", result={}, attempt=record.attempt)
        assert store.job("a").state == "pending"


@pytest.mark.parametrize("queue", ["anywhere", "host here"])
def test_who_wakes_when_its_job_was_taken_over_measures_nothing_more(
    tmp_path, database_url, monkeypatch, queue
):
    clock = Clock()
    monkeypatch.setattr(lab.jobs.job_desk.time, "monotonic", clock)
    row = ForwardPass("optics", np.zeros((1, 1)), np.zeros((1, 1)))
    with Store(tmp_path, database_url) as store:
        store.add_job("job", "fit", {"system": "optics"}, Order(), queue=queue)
        live = LiveJob(store.claim_job("job", 1, "here"), FitConfig(), store, SimpleNamespace())
        desk = JobDesk(live, SimpleNamespace(), Turns(), "bench")
        for _ in range(3):
            clock.now_s += 4.0
            assert desk.own(row).rest.job == "job"
        assert store.take_over("job", 1, "here")
        clock.now_s += DEAD_AFTER_S
        if queue == "anywhere":
            with pytest.raises(Superseded):
                desk.own(row)
        else:  # which nobody else may work on
            assert desk.own(row).rest.job == "job"


def test_who_is_frozen_while_the_queue_is_full_measures_nothing_more(
    tmp_path, database_url, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr(lab.jobs.job_desk.time, "monotonic", clock)
    row = ForwardPass("optics", np.zeros((1, 1)), np.zeros((1, 1)))
    tried = []
    with Store(tmp_path, database_url) as store:

        def full(*asked: object) -> None:
            assert not tried
            tried.append(asked)
            store.take_over("job", 1, "here")
            clock.now_s += DEAD_AFTER_S
            raise QueueFull("full", 0.0)

        store.add_job("job", "fit", {"system": "optics"}, Order(), queue="anywhere")
        live = LiveJob(store.claim_job("job", 1, "here"), FitConfig(), store, SimpleNamespace())
        desk = JobDesk(live, SimpleNamespace(measure_blocking=full), Turns(), "bench")
        with pytest.raises(Superseded):
            desk._measure(row, lambda: False)


def test_who_is_frozen_within_a_claim_does_not_wake_as_the_newest_attempt(
    tmp_path, database_url, monkeypatch
):
    """Between the claim and whatever is read of the job afterwards another host takes it over."""
    with Store(tmp_path, database_url) as store, Store(tmp_path, database_url) as other:
        store.add_job("a", "train", {}, Order())
        read = store.job

        def woken(job_id):
            assert other.take_over(job_id, 1, "w1")
            assert other.claim_job(job_id, 2, "w2").attempt == 3
            return read(job_id)

        monkeypatch.setattr(store, "job", woken)
        record = store.claim_job("a", 1, "w1")
        assert (record.host, record.attempt) == ("w1", 1)
        assert store.job("a").host == "w2"


def hasten(monkeypatch) -> None:
    """Let the server end transactions in which nothing happens in a twentieth of the time."""
    name, equals, idle_ms = lab.jobs.database._POSTGRESQL["options"].partition("=")
    monkeypatch.setitem(
        lab.jobs.database._POSTGRESQL, "options", f"{name}{equals}{int(idle_ms) // 20}"
    )


def test_who_is_frozen_within_a_transaction_holds_up_nobody_for_long(
    tmp_path, postgres_url, monkeypatch
):
    hasten(monkeypatch)
    with Store(tmp_path, postgres_url) as frozen, Store(tmp_path, postgres_url) as other:
        frozen.add_job("a", "train", {}, Order())
        frozen.claim_job("a", 1, "w1")
        with ThreadPoolExecutor(1) as threads, frozen.engine.connect() as connection:
            connection.execute(sa.update(jobs).values(last_step=7))
            taken = threads.submit(other.take_over, "a", 1, "w1")
            try:
                assert taken.result(LIMIT_S)
            finally:
                connection.invalidate()
        assert other.claim_job("a", 2, "w2").last_step == 0  # nothing was written by halves


def test_who_wakes_in_a_transaction_that_was_ended_does_it_again(
    tmp_path, postgres_url, monkeypatch
):
    hasten(monkeypatch)
    database = open_database(tmp_path, postgres_url)
    freezing = [1.0]

    def work(connection):
        connection.execute(sa.text("SELECT 1"))
        if freezing:
            threading.Event().wait(freezing.pop())
        return connection.scalar(sa.text("SELECT 2"))

    assert database.write(work) == 2
    database.engine.dispose()


def test_a_job_that_kills_one_host_after_another_has_its_deaths_counted(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "train", {}, Order())
        for run in (1, 2, 3):
            store.claim_job("a", run, "w1")
            assert store.deaths("a") == run - 1
            assert store.take_over("a", run, "w1")
        handed = store.claim_job("a", 4, "w1")
        store.hand_back("a", handed.attempt)
        store.claim_job("a", 4, "w1")
        assert store.deaths("a") == 0  # a host that was stopped has not died


@pytest.mark.anyio
async def test_the_heart_goes_on_beating_whatever_goes_wrong_once(monkeypatch):
    beaten = asyncio.Event()
    trouble = [RuntimeError("of a kind that nobody has thought of")]

    class Book:
        def beat(self, name: str) -> None:
            if trouble:
                raise trouble.pop()
            asyncio.run_coroutine_threadsafe(tell(), loop)

    async def tell() -> None:
        beaten.set()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr("lab.jobs.housekeeping.BEAT_EVERY_S", 0.01)
    directory = SimpleNamespace(book=Book(), host="a")
    keeper = Housekeeper(None, None, None, None, directory, (), None)
    beating = asyncio.create_task(keeper._beat_for_ever())
    try:
        async with asyncio.timeout(LIMIT_S):
            await beaten.wait()
    finally:
        beating.cancel()
        await asyncio.wait([beating])


class Starting:
    """A directory in which the service with the instruments is just starting anew."""

    def __init__(self, *urls: str) -> None:
        self.urls = list(urls)
        self.bench = None

    def system(self, name: str) -> KnownSystem:
        return system(url=self.urls.pop(0) if len(self.urls) > 1 else self.urls[0])

    def is_here(self, name: str) -> bool:
        return False


def assigned(monkeypatch, directory: Starting, waited: list[float]) -> Assignment:
    monkeypatch.setattr(JobRunner, "_description", lambda runner, known: None)
    clock = SimpleNamespace(monotonic=lambda: sum(waited))
    monkeypatch.setattr("lab.jobs.runner.time", clock)
    job = SimpleNamespace(id="a", config=FitConfig(), client="ann", attempt=1, pause=waited.append)
    return JobRunner(None, None, None, directory=directory)._assignment(job)


def test_a_job_waits_for_a_service_that_is_starting_to_say_where_it_is(monkeypatch):
    waited: list[float] = []
    assignment = assigned(monkeypatch, Starting("", "", "http://a:2"), waited)
    assert assignment.elsewhere.url == "http://a:2"
    assert len(waited) == 2


def test_a_job_does_not_wait_for_ever_for_an_address(monkeypatch):
    with pytest.raises(ConfigError, match="optics: its service 'a' has not said"):
        assigned(monkeypatch, Starting(""), [])

"""Disks and databases that fail for a while: what is waited for, for how long, and what is told."""

import errno
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import lab.jobs.database
import lab.jobs.files
import lab.jobs.patience
from forwarder import Forwarder
from lab.errors import DatabaseAway, Stopped
from lab.jobs.files import FolderFiles
from lab.jobs.patience import LIMIT_S, Outage, Outages, Patience, passing
from lab.jobs.records import Order
from lab.jobs.store import Store


class Waiting:
    """A pause that lasts no time: it counts, and does something at a given number."""

    def __init__(self, number: int = 3, then: Callable[[], object] = lambda: None) -> None:
        self.count = 0
        self.number, self.then = number, then

    def __call__(self, seconds: float) -> None:
        self.count += 1
        if self.count == self.number:
            self.then()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# what passes


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EACCES]
)
def test_a_disk_may_recover(number: int) -> None:
    assert "disk x" in str(passing(OSError(number, "disk x")))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no file"),
        OSError("disk full, but without a number"),
        ValueError("no"),
        sa.exc.IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE")),
        sa.exc.OperationalError("SELECT", {}, sqlite3.OperationalError("no such table: jobs")),
    ],
)
def test_a_mistake_does_not_pass(error: Exception) -> None:
    assert passing(error) is None


def refusal(url: str) -> str | None:
    engine = sa.create_engine(url, connect_args={"connect_timeout": 5})
    with pytest.raises(sa.exc.OperationalError) as refused:
        engine.connect()
    return passing(refused.value)


def test_a_server_that_is_not_there_may_come(postgres_url: str) -> None:
    with Forwarder("127.0.0.1", 1) as nobody:
        nobody.cut()
        url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg", port=nobody.port)
        assert "refused" in str(refusal(url.render_as_string(hide_password=False)))


def test_a_database_that_is_not_there_does_not_come_by_itself(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg", database="nope")
    assert refusal(url.render_as_string(hide_password=False)) is None


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  the database system is shutting down", True),
        ("FATAL:  the database system is in recovery mode", True),
        ("FATAL:  sorry, too many clients already", True),
        ('FATAL:  password authentication failed for user "ann"', False),
        ("server closed the connection unexpectedly", True),
    ],
)
def test_what_a_server_says_on_connecting_tells(said: str, passes: bool) -> None:
    error = sa.exc.OperationalError("", {}, Exception(said))
    assert passing(error) == (said if passes else None)


# for how long


def test_a_request_waits_for_a_moment(clock: Clock) -> None:
    with pytest.raises(DatabaseAway, match="No space left on device") as away:
        Patience(Outages(steady=clock), pause=clock.pause).keep_trying(full, "write")
    assert LIMIT_S <= clock.now - 1000 <= LIMIT_S + 2
    assert away.value.retry_after_s > 0


def test_while_an_outage_lasts_requests_fail_at_once_and_seldom_try(clock: Clock) -> None:
    patience = Patience(Outages(steady=clock), pause=clock.pause)
    tries = []

    def fail() -> None:
        tries.append(clock.now)
        full()

    with pytest.raises(DatabaseAway):
        patience.keep_trying(fail, "write")
    began, tries[:] = clock.now, []
    for _ in range(40):
        with pytest.raises(DatabaseAway):
            patience.keep_trying(fail, "write")
        clock.now += 0.25
    assert clock.now == began + 10
    assert 8 <= len(tries) <= 10


def test_a_job_waits_as_long_as_it_takes(clock: Clock) -> None:
    failures = iter([full] * 1000)
    patience = Patience(Outages(steady=clock)).endless(clock.pause)

    def call() -> str:
        next(failures, lambda: None)()
        return "kept"

    assert patience.keep_trying(call, "write") == "kept"
    assert clock.now > 1000 + 1900


def test_a_job_that_is_to_end_does_not_wait() -> None:
    def stopped(seconds: float) -> None:
        raise Stopped("the job is to end")

    with pytest.raises(Stopped):
        Patience(Outages()).endless(stopped).keep_trying(full, "write")


def test_who_can_do_without_tries_once() -> None:
    waiting = Waiting()
    with pytest.raises(DatabaseAway):
        Patience(Outages(), pause=waiting).none().keep_trying(full, "write")
    assert waiting.count == 0


def test_a_mistake_is_not_tried_again() -> None:
    def fail() -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        Patience(Outages()).endless(Waiting()).keep_trying(fail, "write")


# what is told


def test_an_outage_is_told_when_it_begins_and_when_it_has_ended(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outages = Outages(clock=lambda: 5.0, steady=clock)
    patience = Patience(outages).endless(clock.pause)
    seen = []

    def call() -> None:
        seen.append(outages.now())
        if len(seen) < 5:
            full()

    patience.keep_trying(call, "write")
    assert [outage.since_s for outage in seen if outage] == [5.0] * 4
    assert "No space left" in seen[1].reason
    assert outages.now() is None
    began, ended = [record.getMessage() for record in caplog.records]
    assert began.startswith("the database cannot be written: ")
    assert ended == f"no longer, after {clock.now - 1000:.1f} s: the database cannot be written"


def test_a_full_disk_that_is_read_is_still_full(clock: Clock) -> None:
    outages = Outages(steady=clock)
    patience = Patience(outages, pause=clock.pause)
    with pytest.raises(DatabaseAway):
        patience.keep_trying(full, "write")
    assert patience.keep_trying(lambda: 1, "read") == 1
    assert outages.now() is not None
    clock.now += 10
    patience.keep_trying(lambda: None, "write")
    assert outages.now() is None


def test_what_works_says_nothing_of_what_else_fails(clock: Clock) -> None:
    outages = Outages(steady=clock)
    patience = Patience(outages).none()
    with pytest.raises(DatabaseAway):
        patience.keep_trying(full, "file")
    patience.keep_trying(lambda: None, "write")
    assert outages.now() is not None
    clock.now += 10
    patience.keep_trying(lambda: None, "file")
    assert outages.now() is None


def test_nobody_waits_when_the_service_is_about_to_end() -> None:
    outages = Outages()
    outages.hurry()
    with pytest.raises(DatabaseAway):
        Patience(outages, limit_s=LIMIT_S).keep_trying(full, "write")


def test_an_outage_is_a_phrase() -> None:
    assert str(Outage(0.0, "full")) == "away since 1970-01-01T00:00:00+00:00 (full)"


# SQLite


@contextmanager
def limited(store: Store, pragma: str, lifted: str) -> Iterator[Callable[[], None]]:
    """Set a pragma on every connection of a store; give what lifts it."""
    now = [pragma]

    def checkout(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA {now[0]}").close()

    def lift() -> None:
        now[0] = lifted

    sa.event.listen(store.engine, "checkout", checkout)
    try:
        yield lift
    finally:
        sa.event.remove(store.engine, "checkout", checkout)


@pytest.mark.parametrize(
    ("pragma", "lifted", "reason"),
    [
        ("max_page_count=1", "max_page_count=1000000", "database or disk is full"),
        ("query_only=ON", "query_only=OFF", "readonly database"),
    ],
)
def test_a_disk_that_is_full_or_read_only_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pragma: str, lifted: str, reason: str
) -> None:
    metric = {"text": "x" * 100_000}  # needs pages of its own
    with Store(tmp_path) as store:
        store.add_job("a", "train", {})
        with limited(store, pragma, lifted) as lift:
            with pytest.raises(DatabaseAway, match=reason):
                store.impatient().add_metric("a", 1, metric)
            assert store.job("a").last_step == 0  # it can be read
            outage = store.outage()
            assert outage is not None
            assert reason in outage.reason
            store.patient(Waiting(then=lift)).add_metric("a", 1, metric)
        assert [m.metric for m in store.metrics("a")] == [metric]
        assert store.outage() is None
    assert "s: the database cannot be written" in caplog.text


def test_a_look_finds_out_that_an_outage_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.jobs.patience, "_NEXT_TRY_S", 0.0)
    with Store(tmp_path) as store:
        assert store.look() is None
        with limited(store, "query_only=ON", "query_only=OFF") as lift:
            with pytest.raises(DatabaseAway):
                store.impatient().add_job("a", "train", {})
            assert "readonly" in str(store.look())
            lift()
            assert store.outage() is not None
            assert store.look() is None


def test_a_lock_that_another_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.jobs.database, "_SQLITE", ("journal_mode=WAL", "busy_timeout=0"))
    with Store(tmp_path) as store:
        other = sqlite3.connect(tmp_path / "pnnlab.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseAway, match="locked"):
            store.impatient().add_job("a", "train", {})
        waiting = Waiting(then=lambda: other.execute("ROLLBACK"))
        store.patient(waiting).add_job("a", "train", {})
        other.close()
        assert store.job("a").id == "a"
        assert waiting.count == 3


def test_files_wait_for_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = lab.jobs.files.write_whole

    def failing(*args: Any) -> None:
        full()

    def mend() -> None:
        monkeypatch.setattr(lab.jobs.files, "write_whole", real)

    monkeypatch.setattr(lab.jobs.files, "write_whole", failing)
    with Store(tmp_path) as store:
        with pytest.raises(OSError, match="No space left"):
            store.files_without_waiting.write("twins/a.pt", b"1")
        store.patient(Waiting(then=mend)).files.write("twins/a.pt", b"1")
        assert FolderFiles(tmp_path).read("twins/a.pt") == b"1"


# twice


def test_what_is_written_twice_is_there_once(tmp_path: Path, database_url: str | None) -> None:
    with Store(tmp_path, database_url) as store:
        for _ in range(2):
            store.add_job("a", "train", {"seed": 1}, Order(client="ann"))
            store.add_metric("a", 1, {"loss": 1.0})
        store.claim_job("a", 1, "here")
        store.add_job("a", "train", {"seed": 1}, Order(client="ann"))
        assert [job.state for job in store.jobs()] == ["running"]
        assert [m.step for m in store.metrics("a")] == [1]


@contextmanager
def lost_answers(store: Store) -> Iterator[list[str]]:
    """Let every second commit succeed, but its answer be lost."""
    lost: list[str] = []
    commit = store.engine.dialect.do_commit
    turn = threading.Lock()
    count = [0]

    def losing(connection: Any) -> None:
        commit(connection)
        with turn:
            count[0] += 1
            if count[0] % 2:
                lost.append("commit")
                raise OSError(errno.EIO, "the answer was lost")

    store.engine.dialect.do_commit = losing  # type: ignore[method-assign]
    try:
        yield lost
    finally:
        store.engine.dialect.do_commit = commit  # type: ignore[method-assign]


def test_nothing_is_lost_or_doubled_where_answers_are_lost(
    tmp_path: Path, database_url: str | None
) -> None:
    with Store(tmp_path, database_url) as opened, lost_answers(opened) as lost:
        store = opened.patient(Waiting())
        store.add_job("a", "train", {})
        store.claim_job("a", 1, "here")
        for step in range(1, 21):
            store.add_metric("a", step, {"step": step})
        store.files.write("twins/a.pt", b"1")
        store.end_job("a", "succeeded", result={"x": 1})
        assert len(lost) >= 20
        assert [m.metric["step"] for m in store.metrics("a")] == list(range(1, 21))
        assert (store.job("a").state, store.result("a")) == ("succeeded", {"x": 1})
        assert store.files.under("twins").names() == ["a.pt"]


# PostgreSQL


def test_a_server_that_goes_away_is_waited_for(
    tmp_path: Path, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lab")
    there = sa.make_url(postgres_url)
    with Forwarder("127.0.0.1", there.port or 5432) as line:
        url = there.set(port=line.port).render_as_string(hide_password=False)
        with Store(tmp_path, url) as store:
            store.add_job("a", "train", {})
            line.cut()
            with pytest.raises(DatabaseAway):
                store.impatient().job("a")
            waiting = Waiting(then=line.mend)
            store.patient(waiting).add_metric("a", 1, {})
            assert waiting.count == 3
            assert store.job("a").last_step == 1
            assert store.outage() is None
    assert caplog.text.count("no longer") == 2  # for reading and for writing

"""What is kept of a job's attempts, in new databases and in those of older versions."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from lab.bench import Bench, open_bench
from lab.bench_config import NO_BENCH, read_bench
from lab.config import TrainConfig
from lab.errors import Conflict, Superseded, UnknownName
from lab.jobs.directory import Directory
from lab.jobs.hosts import HostBook
from lab.jobs.lineage import changed_since, keep_attempt, same_again, told_provenance
from lab.jobs.records import JobRecord
from lab.jobs.store import Store
from lab.jobs.tables import jobs, metadata
from lab.provenance import bench_record, provenance

FILE = Path(__file__).parents[2] / "bench.toml"
EMPTY = Bench(NO_BENCH, {}, {})
NOW = {"host": "lab1", "packages": {"torch": "1"}, "config": {"seed": 0}, "twins": {}}


@pytest.fixture
def store(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "train", {"seed": 0})
        yield store


def claimed(store: Store, host: str = "lab1") -> JobRecord:
    record = store.claim_job("a", 1, host)
    assert record is not None
    return record


def test_the_first_attempts_surroundings_stay_and_later_ones_say_what_changed(store):
    keep_attempt(store, claimed(store), NOW)
    keep_attempt(store, claimed(store, "lab2"), NOW | {"packages": {"torch": "2"}})
    found = told_provenance(store, store.job("a"))
    assert found["packages"] == {"torch": "1"}
    told = [(a["attempt"], a["host"], a["changed"]) for a in found["attempts"]]
    assert told == [(1, "lab1", []), (2, "lab2", ["torch 1 → 2"])]
    assert changed_since(store, store.job("a"), NOW) == []


def test_of_many_attempts_the_first_and_the_newest_are_kept(store):
    for _ in range(55):
        keep_attempt(store, claimed(store), NOW)
    attempts = [a["attempt"] for a in told_provenance(store, store.job("a"))["attempts"]]
    assert attempts == [1, *range(7, 56)]


def test_an_attempt_that_does_not_count_any_more_keeps_nothing(store):
    late = claimed(store)
    keep_attempt(store, claimed(store, "lab2"), NOW)
    with pytest.raises(Superseded):
        keep_attempt(store, late, NOW | {"host": "zombie"})
    assert told_provenance(store, store.job("a"))["host"] == "lab1"


def test_what_is_not_there_has_none(store):
    with pytest.raises(UnknownName, match="'nope'"):
        store.provenance("nope")
    with pytest.raises(Conflict, match="job a has no provenance: it is pending"):
        told_provenance(store, store.job("a"))


def test_a_database_of_before_is_given_the_column_and_its_jobs_run_again(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        store.add_job("a", "fit", {"rows": 20, "deadline_s": 1.0})
        store.end_job("a", "succeeded", result={"twin": "t"})
        with store.engine.begin() as connection:  # as a version left it that kept none
            connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN provenance"))
    with Store(tmp_path, database_url) as store:
        names = {column["name"] for column in sa.inspect(store.engine).get_columns("jobs")}
        assert names == {column.name for column in jobs.columns}
        old = store.job("a")
        assert (old.state, store.result("a")) == ("succeeded", {"twin": "t"})
        with pytest.raises(Conflict, match="it has succeeded"):
            told_provenance(store, old)
        assert "is not known" in changed_since(store, old, NOW)[0]
        again = same_again(old)
        assert (again.rows, again.deadline_s) == (20, None)
        store.add_job("b", "train", {})
        record = store.claim_job("b", 1, "lab1")
        keep_attempt(store, record, NOW)
        assert told_provenance(store, store.job("b"))["host"] == "lab1"


def test_every_column_that_was_added_later_can_be_missing(tmp_path):
    """The tables of the first version, which had ten columns of jobs."""
    first = metadata.tables["jobs"].columns.keys()[:10]
    columns = ", ".join(f"{jobs.c[name].name} {jobs.c[name].type}" for name in first)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/pnnlab.sqlite")
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE jobs ({columns})"))
        connection.execute(
            sa.text(
                "INSERT INTO jobs VALUES ('a', 'fit', 'succeeded', '{\"rows\": 20}', 'ann', '', "
                "1.0, 2.0, 3.0, 'null')"
            )
        )
    engine.dispose()
    with Store(tmp_path) as store:
        old = store.job("a")
        assert (old.client, old.state, old.attempt) == ("ann", "succeeded", 0)
        assert store.provenance("a") is None


def test_a_job_measured_by_another_service_comes_from_that_ones_bench(tmp_path, postgres_url):
    with Store(tmp_path, postgres_url) as store, open_bench(FILE, start=False) as bench:
        book = HostBook(store.database)
        there, here = Directory(bench, "lab1", book), Directory(EMPTY, "worker", book)
        book.enter("lab1", there.own(), "http://lab1", there.record)
        assert (
            here.bench_of("optics") == there.bench_of("optics") == bench_record(*read_bench(FILE))
        )
        book.enter("lab1", there.own(), "http://lab1")  # as a version that told nothing of it
        told = provenance(here.bench_of("optics"), TrainConfig(seed=3), software={})
        assert told["bench"]["measurement_digest"] == bench.config.measurement_digest()
        assert told["seeds"] == {"seed": 3, "twin.seed": 0}

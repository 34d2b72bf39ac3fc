"""What outlives the process: the database, the data folder, files of parameters."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sqlalchemy as sa
import torch

from lab.errors import ConfigError, Conflict, DataError, UnknownName
from lab.jobs.data_folder import hold_folder, write_whole
from lab.jobs.files import FolderFiles
from lab.jobs.records import MetricRecord, Order, TwinRecord
from lab.jobs.state_files import load_state, state_bytes
from lab.jobs.store import Store
from lab.jobs.store_shots import SHOTS_AHEAD


@pytest.fixture
def store(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        yield store


def twin_record(twin_id="t1", *, job="a", created_s=1.0, **fields) -> TwinRecord:
    values = {"system": "optics", "kind": "neural", "rows": 20, "seed": 0, "bench": "b" * 64}
    report = {"random": {"r2": 0.5}, "task": None}
    return TwinRecord(
        id=twin_id, job=job, created_s=created_s, report=report, **{**values, **fields}
    )


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path):
    (tmp_path / "pnnlab.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match=r"pnnlab\.sqlite: cannot be used \(file is not a data"):
        Store(tmp_path)


def test_a_database_that_is_not_there_is_refused_without_its_password(tmp_path, postgres_url):
    url = sa.make_url(postgres_url).set(database="pnnlab_nowhere", password="not-to-be-shown")
    with pytest.raises(ConfigError, match=r"/pnnlab_nowhere: cannot be used \(.*not exist") as no:
        Store(tmp_path, url.render_as_string(hide_password=False))
    assert "not-to-be-shown" not in str(no.value)


def test_a_job_goes_from_pending_to_its_result(store):
    store.add_job("a", "train", {"seed": 3}, Order(client="ann"))
    pending = store.job("a")
    store.claim_job("a", 1, "here")
    running = store.job("a")
    store.end_job("a", "succeeded", result={"accuracy": 0.5})
    ended = store.job("a")
    assert (pending.state, running.state, ended.state) == ("pending", "running", "succeeded")
    assert (pending.config, pending.client, pending.kind) == ({"seed": 3}, "ann", "train")
    assert pending.started_s is None
    assert pending.created_s <= running.started_s <= ended.finished_s
    assert (running.ended, ended.ended) == (False, True)
    assert store.result("a") == {"accuracy": 0.5}


def test_a_job_ends_once(store):
    store.add_job("a", "train", {})
    store.end_job("a", "cancelled", error="by request")
    store.end_job("a", "succeeded", result={"accuracy": 1.0})
    store.claim_job("a", 1, "here")
    assert store.job("a").state == "cancelled"
    assert store.job("a").error == "by request"
    assert store.result("a") is None


def test_jobs_come_newest_first_by_state_and_limit(store):
    for name in "abc":
        store.add_job(name, "train", {})
    store.end_job("b", "failed", error="why")
    assert [job.id for job in store.jobs()] == ["c", "b", "a"]
    assert [job.id for job in store.jobs(limit=2)] == ["c", "b"]
    assert [job.id for job in store.jobs(state="failed")] == ["b"]


def test_what_a_dead_process_left_is_found_oldest_first(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        for name in ("running", "pending", "done"):
            store.add_job(name, "train", {})
        store.claim_job("running", 1, "here")
        store.end_job("done", "succeeded", result={})
    with Store(tmp_path, database_url) as store:
        left = [(job.id, job.state) for job in store.unfinished_jobs()]
        assert left == [("running", "running"), ("pending", "pending")]


def test_the_next_jobs_are_those_of_the_highest_priority_then_the_oldest(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        for name, priority in (("first", 0), ("second", 0), ("urgent", 5), ("runs", 9)):
            store.add_job(name, "train", {"priority": priority}, queue="here")
        store.claim_job("runs", 1, "here")
        store.add_job("elsewhere", "train", {}, queue="there")
        assert store.next_jobs("here", 2) == ["urgent", "first"]
        assert store.next_jobs("here", 9) == ["urgent", "first", "second"]


def test_later_metrics_are_dropped_of_one_job_only(store):
    for job in "ab":
        store.add_job(job, "train", {})
        for step in (1, 2, 3):
            store.add_metric(job, step, {})
    store.drop_metrics("a", after=1)
    assert [[m.step for m in store.metrics(job)] for job in "ab"] == [[1], [1, 2, 3]]


@pytest.mark.parametrize("ask", ["job", "result", "twin"])
def test_what_is_not_there_is_unknown_by_name(store, ask):
    with pytest.raises(UnknownName, match="'nope'"):
        getattr(store, ask)("nope")


def test_metrics_come_in_order_after_a_step(store):
    store.add_job("a", "train", {})
    for step in (1, 2, 3):
        store.add_metric("a", step, {"loss": step / 2})
    assert store.metrics("a", since=1) == [
        MetricRecord(2, {"loss": 1.0}),
        MetricRecord(3, {"loss": 1.5}),
    ]
    assert [m.step for m in store.metrics("a", limit=2)] == [1, 2]
    assert store.job("a").last_step == 3


def test_numbers_that_are_not_finite_are_kept_as_null(store):
    store.add_job("a", "train", {})
    store.add_metric("a", 1, {"loss": float("nan"), "list": [1.0, float("inf")]})
    assert store.metrics("a")[0].metric == {"loss": None, "list": [1.0, None]}


def test_a_metric_is_on_the_disk_when_it_is_kept(tmp_path, database_url):
    with Store(tmp_path, database_url) as writer, Store(tmp_path, database_url) as reader:
        writer.add_job("a", "train", {})
        writer.add_metric("a", 1, {"loss": 1.0})
        assert len(reader.metrics("a")) == 1


def test_many_threads_write_at_once(store):
    store.add_job("a", "train", {})
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda step: store.add_metric("a", step, {}), range(1, 101)))
    assert [m.step for m in store.metrics("a")] == list(range(1, 101))


def test_the_newest_twin_that_fits_is_found(store):
    store.add_job("a", "fit", {})
    store.add_twin(twin_record("old", created_s=1.0))
    store.add_twin(twin_record("new", created_s=2.0))
    store.add_twin(twin_record("other", created_s=3.0, seed=1))
    assert store.find_twin(system="optics", seed=0).id == "new"
    assert store.find_twin(system="optics", seed=2) is None
    assert store.twin("old") == twin_record("old", created_s=1.0)
    assert [twin.id for twin in store.twins(limit=2)] == ["other", "new"]


def test_shot_numbers_go_on_after_a_clean_end(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        assert store.reserve_shots(["optics", "plate"]) == {"optics": 0, "plate": 0}
        store.release_shots({"optics": 17, "plate": 0})
    with Store(tmp_path, database_url) as store:
        assert store.reserve_shots(["optics", "plate"]) == {"optics": 17, "plate": 0}


def test_shot_numbers_are_not_used_twice_after_a_crash(tmp_path, database_url):
    with Store(tmp_path, database_url) as store:
        store.reserve_shots(["optics"])
    with Store(tmp_path, database_url) as store:
        assert store.reserve_shots(["optics"]) == {"optics": SHOTS_AHEAD}


def test_two_hosts_have_no_shot_number_in_common(tmp_path, database_url):
    with Store(tmp_path, database_url) as one, Store(tmp_path, database_url) as other:
        with ThreadPoolExecutor(4) as threads:
            stores = [one, other] * 4
            first = list(threads.map(lambda s: s.reserve_shots(["optics"])["optics"], stores))
        assert sorted(first) == [i * SHOTS_AHEAD for i in range(8)]
        one.release_shots({"optics": min(first) + 17})
        assert other.reserve_shots(["optics"]) == {"optics": 8 * SHOTS_AHEAD}


HOLD = """
import sys
from pathlib import Path
from lab.jobs.data_folder import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("owned", flush=True)
    sys.stdin.read()
"""


def test_a_data_folder_has_one_owner_until_it_dies(tmp_path):
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        try:
            assert owner.stdout.readline() == b"owned\n"
            with pytest.raises(ConfigError, match="another service"), hold_folder(folder):
                pass
        finally:
            owner.kill()
    with hold_folder(folder) as held:
        assert held == folder


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"), hold_folder(tmp_path / "file"):
        pass


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "sub" / "state.pt"

    def fail(file) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert list(path.parent.iterdir()) == []
    write_whole(path, lambda file: file.write(b"old"))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["state.pt"]


def test_parameters_come_back_as_they_were(tmp_path):
    state = {"weights": torch.randn(3, 4), "name": "a", "sizes": [1, 2]}
    FolderFiles(tmp_path).write("a.pt", state_bytes(state))
    read = load_state(FolderFiles(tmp_path), "a.pt")
    assert torch.equal(read.pop("weights"), state.pop("weights"))
    assert read == state


class _Trap:
    def __reduce__(self):
        return threading.Event, ()


def test_a_parameter_file_cannot_run_code(tmp_path):
    torch.save({"trap": _Trap()}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="truncated or altered"):
        load_state(FolderFiles(tmp_path), "a.pt")


@pytest.mark.parametrize("content", [b"", b"no zip file"])
def test_a_file_that_is_no_parameter_file_is_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pt"):
        load_state(FolderFiles(tmp_path), "a.pt")


def test_a_truncated_parameter_file_is_refused(tmp_path):
    content = state_bytes({"weights": torch.randn(300)})
    (tmp_path / "a.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="truncated or altered"):
        load_state(FolderFiles(tmp_path), "a.pt")


def test_a_missing_parameter_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        load_state(FolderFiles(tmp_path), "a.pt")


def test_a_key_belongs_to_what_it_was_used_for_also_after_a_change(store):
    order = Order(key="k")
    assert store.add_job("a", "train", {"epochs": 3}, order) == "a"
    assert store.add_job("b", "train", {"epochs": 3}, order) == "a"
    with pytest.raises(Conflict, match="key 'k' belongs to job a"):
        store.add_job("c", "train", {"epochs": 4}, order)
    store.end_job("a", "failed")
    assert store.continue_job("a", {"epochs": 4}) == 2
    assert store.add_job("d", "train", {"epochs": 3}, order) == "a"


def test_a_weaker_wish_takes_no_stronger_ones_place(store):
    store.add_job("a", "train", {})
    store.claim_job("a", 1, "here")
    assert store.wish("a", "pause", "lunch")
    assert store.wish("a", "cancel", "no use")
    assert not store.wish("a", "pause", "lunch again")
    assert store.wishes(["a"]) == {"a": ("cancel", "no use")}


def test_a_tag_in_any_script_is_found(store):
    for job, tag in (("a", "n\u00e4chtlich"), ("b", "nachtlich"), ("c", "\u591c\u9593")):
        store.add_job(job, "train", {}, Order(tags=(tag,)))
    assert [job.id for job in store.jobs(tag="n\u00e4chtlich")] == ["a"]
    assert [job.id for job in store.jobs(tag="\u591c\u9593")] == ["c"]


@pytest.mark.parametrize("name", ["\0", "a\0b"])
def test_a_name_that_the_database_cannot_look_for_is_refused_or_unknown(store, name):
    for look in (store.job, store.twin, store.result):
        with pytest.raises((UnknownName, ConfigError), match=r"no (job|twin)|database"):
            look(name)


def test_a_number_beyond_the_databases_is_refused_or_unknown(store):
    store.add_job("a", "train", {})
    for attempt in (2**40, 10**30):
        with suppress(ConfigError):
            assert not store.holds("a", attempt)

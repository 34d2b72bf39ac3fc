"""Recording within a budget, beside a disk that is full or slow: the job goes on, and is told."""

import errno
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab.recording.layout
import lab.recording.recorder
import lab.recording.writer
from lab.errors import Conflict, DataError, UnknownName
from lab.recording.notes import Gap, NoteBook
from lab.recording.reading import open_rows
from lab.recording.recorder import RowRecorder
from lab.recording.writer import RowWriter, size_of
from recorded_passes import BEGAN_S, described, measured

BUDGET = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.recording.layout, "_CHUNK_ROWS", 8)
        yield


def recorder(folder: Path, **options) -> RowRecorder:
    options = {"bench": "", "ended": lambda job: False, "retry_s": 0.0, **options}
    return RowRecorder(folder, lambda name: described(), **options)


@contextmanager
def full_disk(after: int = 0) -> Iterator[None]:
    """Let the files of chunks fail to be written, after so many."""
    replace, left = lab.recording.writer._replace, [after]

    def fail(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.recording.writer, "_replace", fail)
        yield


def indices(folder: Path, job: str = "job") -> list[int]:
    return open_rows(folder / f"{job}.zarr")["index"].values.tolist()


@pytest.mark.parametrize("after", [0, 5, 17])
def test_a_full_disk_leaves_a_gap_that_is_told(tmp_path, caplog, after):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 5))
        rows.flush()
        with full_disk(after):
            for first in (5, 15):
                rows.add(*measured(first, 10))
                rows.flush()
            assert indices(tmp_path) == list(range(5))
        rows.add(*measured(25, 5))
        rows.flush()
        assert indices(tmp_path) == [*range(5), *range(25, 30)]
        assert rows.recorded("job").notes == [
            "rows missing from 2027-01-15T08:00:01Z to 2027-01-15T08:00:06Z: 20 "
            "(No space left on device)"
        ]
        packed = open_rows(rows.pack("job"))
    assert packed.notes == rows.recorded("job").notes
    assert [record.message for record in caplog.records] == [
        "job job goes on, but its rows are not recorded: No space left on device",
        "job job: its rows are recorded again",
    ]
    with recorder(tmp_path) as later:  # it outlives the process
        assert later.recorded("job").notes == packed.notes


def test_while_it_fails_it_is_tried_now_and_then_only(tmp_path, monkeypatch):
    tries = []

    def fail(*args: object) -> None:
        tries.append(args)
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(lab.recording.recorder, "RowWriter", fail)
    with recorder(tmp_path, retry_s=1000.0) as rows:
        for first in range(5):
            rows.add(*measured(first, 1))
            rows.flush()
        [note] = rows.recorded("job").notes
    assert len(tries) == 1
    assert note.endswith(": 5 (Read-only file system)")


def test_an_error_that_nobody_thought_of_is_a_gap_too(tmp_path, caplog):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 5))
        forward_pass, measurement = measured(5, 5)
        object.__setattr__(forward_pass, "system", "another")
        rows.add(forward_pass, measurement)
        rows.flush()
        rows.add(*measured(10, 5))
        rows.add(*measured(0, 5, job="other"))
        rows.flush()
        assert "a row of system 'another' among those of 'rig'" in rows.recorded("job").notes[0]
    assert indices(tmp_path) == [*range(10, 15)]  # what came with it is missing as well
    assert indices(tmp_path, "other") == [*range(5)]
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_nobody_waits_for_ever_whatever_goes_wrong(tmp_path, monkeypatch, caplog):
    def wrong(notes: NoteBook) -> None:
        raise ValueError("never seen before")

    with recorder(tmp_path) as rows:
        with monkeypatch.context() as patch:
            patch.setattr(NoteBook, "write", wrong)
            rows.add(*measured(0, 5))
            rows.flush()
        rows.add(*measured(5, 5))
        rows.flush()
        assert indices(tmp_path) == list(range(10))
    assert "measured rows could not be recorded" in caplog.text


def test_a_system_that_nobody_knows_is_a_gap(tmp_path):
    def describe(name: str) -> None:
        raise UnknownName(f"no system '{name}'")

    with RowRecorder(tmp_path, describe, bench="", ended=lambda job: False) as rows:
        rows.add(*measured(0, 5))
        rows.flush()
        [note] = rows.recorded("job").notes
    assert note.endswith(": 5 (UnknownName: no system 'rig')")


def test_a_job_is_no_path(tmp_path):
    with recorder(tmp_path / "rows") as rows:
        with pytest.raises(DataError, match=r"'\.\./elsewhere' is no job's id"):
            rows.add(*measured(0, 5, job="../elsewhere"))
        rows.add(*measured(0, 5, job=""))  # of no job
        rows.add(*measured(0, 5))
        rows.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["job.zarr"]


def test_a_disk_that_does_not_keep_up_stops_nobody(tmp_path, monkeypatch):
    go_on, writing, commit = threading.Event(), threading.Event(), RowWriter.commit

    def slow(writer: RowWriter) -> None:
        writing.set()
        go_on.wait(60)
        commit(writer)

    monkeypatch.setattr(RowWriter, "commit", slow)
    forward_pass, measurement = measured(0, 10)
    size = forward_pass.x.nbytes + forward_pass.theta.nbytes + measurement.y.nbytes
    monkeypatch.setattr(lab.recording.recorder, "_WAITING_BYTES", 2 * size)
    with recorder(tmp_path) as rows:
        rows.add(forward_pass, measurement)
        assert writing.wait(60)
        for first in (10, 20, 30, 40):
            rows.add(*measured(first, 10))
        go_on.set()
        rows.flush()
        [note] = rows.recorded("job").notes
        assert note.endswith(": 20 (the disk did not keep up)")
        rows.add(*measured(50, 10))
    assert indices(tmp_path) == [*range(30), *range(50, 60)]


def test_what_is_closed_takes_no_more(tmp_path):
    rows = recorder(tmp_path)
    rows.add(*measured(0, 3))
    rows.close()
    rows.close()
    rows.add(*measured(3, 3))
    rows.flush()
    assert indices(tmp_path) == [0, 1, 2]


def test_rows_of_the_oldest_job_that_has_ended_make_room(tmp_path, caplog):
    ended = {"first", "second"}
    with recorder(tmp_path, budget_bytes=BUDGET, ended=ended.__contains__) as rows:
        for job in ("running", "first", "second", "third", "fourth"):
            rows.add(*measured(0, 8, job=job))
            rows.flush()
        assert [path.stem for path in sorted(tmp_path.glob("*.zarr"))] == [
            "fourth",
            "running",
            "second",
            "third",
        ]
        [note] = rows.recorded("first").notes
        with pytest.raises(Conflict, match="job first has no rows: 8 rows"):
            rows.pack("first")
    assert note.startswith("8 rows (")
    assert note.endswith(f"to stay within the budget of {BUDGET} bytes")
    assert [record.message.split(" (")[0] for record in caplog.records] == ["job first: 8 rows"]


def test_a_job_alone_over_the_budget_is_not_recorded_any_further(tmp_path):
    with recorder(tmp_path, budget_bytes=BUDGET // 2) as rows:
        rows.add(*measured(0, 8))
        rows.flush()
        rows.add(*measured(8, 1000))
        rows.flush()
        [note] = rows.recorded("job").notes
    assert note.endswith(f": 1000 (the budget of {BUDGET // 2} bytes is used up)")
    assert indices(tmp_path) == list(range(8))


def test_a_job_that_goes_on_after_its_rows_were_deleted_is_recorded_anew(tmp_path):
    ended = {"job"}
    with recorder(tmp_path, budget_bytes=BUDGET, ended=ended.__contains__) as rows:
        for job in ("job", "a", "b", "c", "d"):
            rows.add(*measured(0, 8, job=job))
            rows.flush()
        assert not (tmp_path / "job.zarr").exists()
        ended |= {"a", "b"}
        rows.add(*measured(8, 8))
        rows.flush()
        assert rows.recorded("job").rows == 8
    assert indices(tmp_path) == list(range(8, 16))


def test_a_deletion_that_was_broken_off_is_finished(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 8))
    shutil.move(tmp_path / "job.zarr", tmp_path / "job.deleting")
    with recorder(tmp_path) as rows:
        assert rows.recorded("job").bytes == 0
    assert list(tmp_path.iterdir()) == []


steps = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(1, 60), st.booleans(), st.booleans()),
    min_size=3,
    max_size=14,
)


@settings(max_examples=8, deadline=None)
@given(steps)
def test_the_budget_holds_and_running_jobs_lose_nothing_that_was_recorded(steps):
    ended: set[str] = set()
    added: dict[str, int] = {}
    last_written: dict[str, int] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = recorder(folder, budget_bytes=BUDGET, ended=ended.__contains__)
        for number, (job, count, ends, restarts) in enumerate(steps):
            if job not in ended:
                there = {path.stem for path in folder.glob("*.zarr")}
                before = rows.recorded(job).rows
                rows.add(*measured(added.get(job, 0), count, job=job))
                added[job] = added.get(job, 0) + count
                rows.flush()
                left = {path.stem for path in folder.glob("*.zarr")}
                assert there - left <= ended
                for gone in there - left:
                    assert all(last_written[gone] < last_written[o] for o in left & ended)
                if rows.recorded(job).rows > before:
                    last_written[job] = number
            if ends:
                ended.add(job)
            if restarts:
                rows.close()
                rows = recorder(folder, budget_bytes=BUDGET, ended=ended.__contains__)
            assert sum(size_of(path) for path in folder.glob("*.zarr")) <= BUDGET
            for running in added.keys() - ended:
                missing = sum(gap.rows for gap in NoteBook(folder).of(running).missing)
                assert rows.recorded(running).rows + missing == added[running]
        rows.close()


def test_notes_that_cannot_be_written_are_written_later(tmp_path, monkeypatch):
    gap = Gap(BEGAN_S, BEGAN_S + 1, 3, "why")
    notes = NoteBook(tmp_path)
    notes.add_gap("job", gap, longer=False)
    with monkeypatch.context() as patch:
        patch.setattr(lab.recording.notes, "write_whole", _fails)
        notes.write()
    assert NoteBook(tmp_path).of("job").missing == ()
    notes.write()
    assert NoteBook(tmp_path).of("job") == notes.of("job")
    assert notes.of("job").missing == (gap,)


def _fails(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_gaps_are_joined_where_they_would_be_too_many(tmp_path):
    notes = NoteBook(tmp_path)
    for second in range(1000):
        notes.add_gap("job", Gap(second, second + 0.5, 2, "why"), longer=False)
    found = notes.of("job").missing
    assert len(found) == 100
    assert (found[-1].from_s, found[-1].to_s) == (99, 999.5)
    assert sum(gap.rows for gap in found) == 2000


@pytest.mark.parametrize("content", ["", "{", "[]", '{"missing": [{"from": 1}], "deleted": []}'])
def test_notes_that_cannot_be_read_harm_no_rows(tmp_path, content, caplog):
    (tmp_path / "damaged.json").write_text(content)
    with recorder(tmp_path) as rows:
        with full_disk():
            rows.add(*measured(0, 8, job="damaged"))
            rows.flush()
        rows.add(*measured(8, 8, job="damaged"))
        rows.add(*measured(0, 8, job="other"))
        rows.flush()
        assert rows.recorded("other").rows == 8
        assert rows.recorded("damaged").rows == 8
        (note,) = rows.recorded("damaged").notes
    assert "8 (No space left on device)" in note
    assert "damaged.json" in caplog.text


def test_notes_that_cannot_be_read_do_not_stop_the_recorder(tmp_path, monkeypatch):
    """Rows for which there was no place in memory are noted apart from the others."""
    (tmp_path / "damaged.json").write_text("{")
    monkeypatch.setattr(lab.recording.recorder, "_WAITING_BYTES", 0)
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 8, job="damaged"))
        monkeypatch.setattr(lab.recording.recorder, "_WAITING_BYTES", 2**20)
        rows.add(*measured(0, 8, job="other"))
        rows.flush()
        assert rows._thread.is_alive()
        assert rows.recorded("other").rows == 8

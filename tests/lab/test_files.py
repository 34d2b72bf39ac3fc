"""Files in a folder, and in tables of either database, behave alike."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lab.jobs.table_files
from lab.checkpoints import KEPT, CheckpointFolder
from lab.datasets.own import keep_upload, list_uploads, load_upload
from lab.errors import DataError
from lab.jobs.files import Files, FolderFiles
from lab.jobs.state_files import load_state, state_bytes
from lab.jobs.store import Store
from lab.jobs.table_files import TableFiles


@pytest.fixture(params=["folder", "sqlite", "postgresql"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    if request.param == "folder":
        yield FolderFiles(tmp_path / "files")
        return
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with Store(tmp_path, url) as store:
        yield TableFiles(store._database)


@pytest.fixture
def parts_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return what sets the size of a part, bytes."""
    return lambda size: monkeypatch.setattr(lab.jobs.table_files, "PART_BYTES", size)


def test_what_is_written_is_read_and_replaced(files: Files) -> None:
    files.write("twins/a.pt", b"old")
    files.write("twins/a.pt", memoryview(b"new"))
    files.write("empty", b"")
    assert (files.read("twins/a.pt"), files.read("empty")) == (b"new", b"")
    assert files.names() == ["empty", "twins/a.pt"]


@settings(
    max_examples=25,
    deadline=None,
    # each example writes over the files of the one before
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(contents=st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_a_file_of_several_parts_is_one_file(
    files: Files, parts_of: Callable[[int], None], contents: list[bytes]
) -> None:
    parts_of(8)
    for content in contents:
        files.write("a", content)
        assert files.read("a") == content


def test_what_is_not_there_is_not_found(files: Files) -> None:
    with pytest.raises(FileNotFoundError, match="nope"):
        files.read("nope")
    files.write("a", b"1")
    files.delete("a")
    files.delete("a")
    assert files.names() == []
    with pytest.raises(FileNotFoundError):
        files.read("a")


def test_a_folder_is_seen_and_cleared_alone(files: Files) -> None:
    under = files.under("jobs").under("a")
    under.write("1", b"1")
    files.write("jobs/b/1", b"2")
    files.write("jobs/ab", b"3")
    assert files.read("jobs/a/1") == b"1"
    assert files.under("jobs").names() == ["a/1", "ab", "b/1"]
    assert under.names() == ["1"]
    under.clear()
    under.clear()
    assert files.names() == ["jobs/ab", "jobs/b/1"]


@pytest.mark.parametrize(
    "name", ["", "../a", "a/../b", "/a", "a//b", ".a", "a/.b", "a.tmp", "a\\b"]
)
def test_a_name_leads_nowhere_else(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match="no name for a file"):
        files.write(name, b"")


def test_of_many_writers_one_wins_wholly(files: Files, parts_of: Callable[[int], None]) -> None:
    parts_of(100)
    contents = [bytes([i]) * 1000 for i in range(8)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda content: files.write("a", content), contents))
        found = list(threads.map(lambda _: files.read("a"), range(4)))
    assert {content in contents for content in found} == {True}


def test_a_reader_sees_the_old_file_or_the_new_one(
    files: Files, parts_of: Callable[[int], None]
) -> None:
    parts_of(10)
    old, new = b"0" * 95, b"1" * 55
    files.write("a", old)
    done = threading.Event()

    def write() -> None:
        for content in (new, old) * 10:
            files.write("a", content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(files.read("a"))
    writer.join()
    assert seen <= {old, new}


def test_an_altered_file_of_a_table_is_an_error(tmp_path: Path, database_url: str | None) -> None:
    with Store(tmp_path, database_url) as store:
        files = TableFiles(store._database)
        files.write("a", b"right")
        with store.engine.begin() as connection:
            connection.execute(sa.text("UPDATE file_parts SET content = :c"), {"c": b"wrong"})
        with pytest.raises(DataError, match="a: altered"):
            files.read("a")


def test_checkpoints_are_verified_and_few(files: Files) -> None:
    checkpoints = CheckpointFolder(files.under("checkpoints/job"), {"bench": "b"})
    assert checkpoints.newest() is None
    for step in range(1, KEPT + 3):
        assert checkpoints.keep(step, {}, {"weights": torch.full((3,), float(step))})
    names = files.names()
    assert len(names) == KEPT
    files.write(names[-1], files.read(names[-1])[:-1])  # truncated
    found = checkpoints.newest()
    assert found is not None
    assert found.step == KEPT + 1
    assert torch.equal(found.state["weights"], torch.full((3,), KEPT + 1.0))
    checkpoints.clear()
    assert files.names() == []


def test_parameters_and_uploads_lie_in_any(files: Files) -> None:
    files.write("twins/a.pt", state_bytes({"weights": torch.arange(3)}))
    assert torch.equal(load_state(files, "twins/a.pt")["weights"], torch.arange(3))
    uploads = files.under("datasets")
    content = b"x,label\n0,a\n1,b\n0.5,a\n0.25,b\n"
    info = keep_upload(uploads, content, "mine.csv")
    assert list_uploads(uploads) == [info]
    assert load_upload(uploads, info.task).features.ravel().tolist() == [0, 1, 0.5, 0.25]


def test_files_lie_where_every_machine_with_the_database_finds_them(
    tmp_path: Path, database_url: str | None
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    with Store(here, database_url) as store:
        store.files.write("twins/a.pt", b"1")
    with Store(there, database_url) as store:
        found = store.files.under("twins").names()
    in_folder = [path.name for path in here.rglob("*.pt")]
    assert (found, in_folder) == (([], ["a.pt"]) if database_url is None else (["a.pt"], []))

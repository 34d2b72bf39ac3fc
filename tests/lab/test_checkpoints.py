"""Files of checkpoints: whole, verified, few."""

import errno
import threading
from pathlib import Path

import pytest
import torch

import lab.checkpoints
import lab.jobs.files
from lab.checkpoints import KEPT, CheckpointFolder
from lab.errors import CheckpointRefused
from lab.jobs.files import FolderFiles
from lab.snapshots import Snapshots

ABOUT = {"config": {"seed": 1, "network": {"layers": 2}}, "twin": "t"}


def kept(folder: CheckpointFolder, *steps: int) -> list[Path]:
    for step in steps:
        assert folder.keep(step, ABOUT, {"weights": torch.full((3,), float(step))})
    return kept_now(folder)


def kept_now(folder: CheckpointFolder) -> list[Path]:
    assert isinstance(folder.files, FolderFiles)
    return sorted(folder.files.folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "job", {"bench": "b"})


def test_the_newest_comes_back_as_it_was(folder: CheckpointFolder) -> None:
    assert folder.newest() is None
    kept(folder, 2, 10)
    found = folder.matching(ABOUT)
    assert found is not None
    assert found.step == 10
    assert torch.equal(found.state["weights"], torch.full((3,), 10.0))


def test_the_newest_few_are_kept(folder: CheckpointFolder) -> None:
    files = kept(folder, 9, 10, 1000, 11, 99)
    assert [int(f.name.split("-")[0]) for f in files] == [11, 99, 1000]
    assert len(files) == KEPT


@pytest.mark.parametrize("damage", ["a bit", "a half", "all", "no file"])
def test_a_damaged_one_is_passed_over(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    newest = kept(folder, 1, 2)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "no file":
        newest.unlink()
        newest.symlink_to(newest.name)  # what cannot be opened
    else:
        half = content[: len(content) // 2]
        newest.write_bytes({"a bit": content, "a half": half, "all": b""}[damage])
    found = folder.newest()
    assert found is not None
    assert found.step == 1
    assert newest.name in caplog.text


def test_all_damaged_is_none(folder: CheckpointFolder) -> None:
    for file in kept(folder, 1, 2):
        file.write_bytes(b"")
    assert folder.newest() is None


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[()]]:
        return threading.Event, ()


def test_it_cannot_run_code(folder: CheckpointFolder) -> None:
    assert folder.keep(1, ABOUT, {"trap": _Trap()})
    assert folder.newest() is None


@pytest.mark.parametrize(
    ("bench", "about", "what"),
    [
        ("c", ABOUT, "bench"),
        ("b", ABOUT | {"config": {"seed": 1, "network": {"layers": 3}}}, "config.network.layers"),
        ("b", ABOUT | {"config": {"seed": 2, "network": 1}}, "config.network, config.seed"),
        ("b", {}, "config, twin"),
        ("b", ABOUT | {"data": "d"}, "data"),
    ],
)
def test_one_of_another_run_is_refused(
    folder: CheckpointFolder, bench: str, about: dict[str, object], what: str
) -> None:
    kept(folder, 1)
    with pytest.raises(CheckpointRefused, match=rf"it is of another {what}$"):
        CheckpointFolder(folder.files, {"bench": bench}).matching(about)


def test_one_of_another_format_is_refused(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder, 1)
    monkeypatch.setattr(lab.checkpoints, "FORMAT", lab.checkpoints.FORMAT + 1)
    with pytest.raises(CheckpointRefused, match="another format"):
        CheckpointFolder(folder.files, {"bench": "b"}).matching(ABOUT)


def full_disk(path: Path, write: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_and_the_older_ones_stay(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = kept(folder, 1)
    monkeypatch.setattr(lab.jobs.files, "write_whole", full_disk)
    assert not folder.keep(2, ABOUT, {})
    assert "No space left on device" in caplog.text
    assert kept_now(folder) == before


class Counter:
    """A part whose state is a tensor that is changed in place."""

    def __init__(self) -> None:
        self.value = torch.zeros(1)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.value = state["value"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_is_kept_as_it_was_between_steps_every_so_often(folder: CheckpointFolder) -> None:
    counter, clock = Counter(), Clock()
    snapshots = Snapshots({"counter": counter}, ABOUT, folder, 20.0, clock)
    for step in range(100):  # of 0.6 s: a copy every second step
        snapshots.between_steps(step)
        counter.value += 1
        clock.now += 0.6
    found = folder.newest()
    assert found is not None
    assert found.step == found.state["counter"]["value"] == 68  # the last one after 40.8 s
    snapshots.write()  # step 99 broke off
    found = folder.newest()
    assert found is not None
    assert found.step == found.state["counter"]["value"] == 98


def test_what_could_not_be_written_is_written_at_the_end(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Snapshots({"counter": Counter()}, ABOUT, folder, 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(lab.jobs.files, "write_whole", full_disk)
        snapshots.between_steps(1)
    snapshots.write()
    found = folder.newest()
    assert found is not None
    assert found.step == 1


def test_without_a_folder_nothing_is_copied() -> None:
    snapshots = Snapshots({"counter": Counter()}, {}, None, 0.0)
    assert snapshots.go_on() is None
    snapshots.between_steps(1)
    snapshots.copy(1)
    snapshots.write()
    assert snapshots._copy is None

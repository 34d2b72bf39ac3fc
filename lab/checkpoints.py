"""Checkpoints: from where a training goes on, in files that are whole, verified and few.

A folder belongs to one run. `<step>-<sha256>.pt` holds what the run's future depends on after so
many steps; the name's digest is that of the content. The newest `KEPT` are kept. One that is
damaged is passed over, and the one before it is used.
"""

import hashlib
import io
import logging
import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lab.errors import CheckpointRefused
from lab.jobs.data_folder import write_whole

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the states: another number where an older state can no longer be gone on from."""
KEPT = 3


@dataclass(frozen=True)
class Checkpoint:
    """A training after `step` steps; about: what it is a training of; see `lab.stateful`."""

    step: int
    about: Mapping[str, Any]
    state: Mapping[str, Any]


class CheckpointFolder:
    """The checkpoints of one run; for one thread.

    about: what must be the same for a run to go on from one of these, plain values by name (what
    the run itself adds: its config, data and twin).
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        """Use a folder, which is made when the first checkpoint is kept."""
        self.folder = folder
        self.about = {"format": FORMAT, **(about or {})}

    def newest(self) -> Checkpoint | None:
        """Return the newest good checkpoint, None where there is none."""
        for name in reversed(self._names()):
            try:
                return _parsed(name, self._read(name))
            except (OSError, ValueError) as error:
                log.warning("checkpoint %s is passed over: %s", self.folder / name, error)
        return None

    def matching(self, about: Mapping[str, Any]) -> Checkpoint | None:
        """Return the newest good checkpoint; raise CheckpointRefused if it is of another run."""
        found = self.newest()
        if found is not None:
            _refuse_others(found.about, {**self.about, **about})
        return found

    def keep(self, step: int, about: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
        """Write a checkpoint and drop old ones; say whether that could be done.

        A disk that is full, say, is told in the log: the training can go on without.
        """
        content = io.BytesIO()
        torch.save({"step": step, "about": {**self.about, **about}, "state": dict(state)}, content)
        data = content.getvalue()
        name = f"{step:010d}-{hashlib.sha256(data).hexdigest()}.pt"
        try:
            self._write(name, data)
        except OSError as error:
            log.warning("checkpoint %s could not be written: %s", self.folder / name, error)
            return False
        for old in self._names()[:-KEPT]:
            self._delete(old)
        return True

    def clear(self) -> None:
        """Delete the folder, if there is one."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _names(self) -> list[str]:
        """Return the checkpoints' names, the newest last."""
        return sorted(path.name for path in self.folder.glob("*.pt"))

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def _write(self, name: str, data: bytes) -> None:
        write_whole(self.folder / name, lambda file: file.write(data))

    def _delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


def _parsed(name: str, data: bytes) -> Checkpoint:
    """Return a verified checkpoint; raise ValueError."""
    if hashlib.sha256(data).hexdigest() != Path(name).stem.partition("-")[2]:
        raise ValueError("its content is not what was written")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return Checkpoint(content["step"], content["about"], content["state"])
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"it is no checkpoint ({error})") from error


def _refuse_others(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    other = sorted(_differences(found, wanted))
    if other:
        raise CheckpointRefused(
            "the checkpoint cannot be gone on from: it is of another " + ", ".join(other)
        )


def _differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted names of what differs."""
    if not isinstance(found, Mapping) or not isinstance(wanted, Mapping):
        if found != wanted:
            yield name
        return
    for key in {*found, *wanted}:
        below = f"{name}.{key}" if name else str(key)
        yield from _differences(found.get(key), wanted.get(key), below)

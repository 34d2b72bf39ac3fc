"""Checkpoints: from where a training goes on, in files that are whole, verified and few.

A folder, on a disk or in a database (`lab.jobs.files`), belongs to one run. `<step>-<sha256>.pt`
holds what the run's future depends on after so many steps; the name's digest is that of the
content. The newest `KEPT` are kept. One that is damaged is passed over, and the one before it is
used.
"""

import hashlib
import io
import logging
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lab.errors import CheckpointRefused, DatabaseAway, DataError
from lab.jobs.files import Files, FolderFiles

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the states: another number where an older state can no longer be gone on from."""
KEPT = 3
_NAME = re.compile(r"\d{10}-[0-9a-f]{64}\.pt")


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

    def __init__(self, files: Path | Files, about: Mapping[str, Any] | None = None) -> None:
        """Use a folder, which is made when the first checkpoint is kept, or what is like one."""
        self.files = FolderFiles(files) if isinstance(files, Path) else files
        self.about = {"format": FORMAT, **(about or {})}

    def newest(self) -> Checkpoint | None:
        """Return the newest good checkpoint, None where there is none."""
        found = self._newest_good()
        return None if found is None else found[1]

    def matching(
        self,
        about: Mapping[str, Any],
        comparable: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> Checkpoint | None:
        """Return the newest good checkpoint; raise CheckpointRefused if it is of another run.

        comparable: returns of what is told of a run that which must be the same.
        """
        found = self.newest()
        if found is not None:
            _refuse_others(comparable(found.about), comparable({**self.about, **about}))
        return found

    def keep(self, step: int, about: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
        """Write a checkpoint and drop old ones; say whether that could be done.

        A disk that is full, say, is told in the log: the training can go on without.
        """
        content = io.BytesIO()
        torch.save({"step": step, "about": {**self.about, **about}, "state": dict(state)}, content)
        data = content.getbuffer()
        name = f"{step:010d}-{hashlib.sha256(data).hexdigest()}.pt"
        try:
            self.files.write(name, data)
        except (OSError, DatabaseAway) as error:
            log.warning("checkpoint %s could not be written: %s", name, error)
            return False
        self._prune()
        return True

    def keep_newest(self) -> None:
        """Delete all but the newest good one, if there is a good one."""
        try:
            names = self._names()
            good = self._newest_good() if len(names) > 1 else None
            if good is not None:
                for name in set(names) - {good[0]}:
                    self.files.delete(name)
        except (OSError, DatabaseAway) as error:
            log.warning("old checkpoints could not be deleted: %s", error)

    def clear(self) -> None:
        """Delete them all; what cannot be deleted is told in the log."""
        try:
            self.files.clear()
        except (OSError, DatabaseAway) as error:
            log.warning("checkpoints could not be deleted: %s", error)

    def _newest_good(self) -> tuple[str, Checkpoint] | None:
        for name in reversed(self._names()):
            try:
                return name, _read(self.files, name)
            except (OSError, DataError, ValueError) as error:
                log.warning("checkpoint %s is passed over: %s", name, error)
        return None

    def _names(self) -> list[str]:
        """Return the checkpoints' names, the newest last."""
        return [name for name in self.files.names() if _NAME.fullmatch(name)]

    def _prune(self) -> None:
        try:
            for name in self._names()[:-KEPT]:
                self.files.delete(name)
        except (OSError, DatabaseAway) as error:
            log.warning("old checkpoints could not be deleted: %s", error)


def _read(files: Files, name: str) -> Checkpoint:
    """Return a verified checkpoint; raise OSError, DataError, DatabaseAway or ValueError."""
    data = files.read(name)
    if hashlib.sha256(data).hexdigest() != name.removesuffix(".pt").partition("-")[2]:
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

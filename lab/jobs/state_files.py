"""Files of parameters: plain state dictionaries, read without running any code in them."""

import pickle
from pathlib import Path
from typing import Any

import torch

from lab.errors import DataError
from lab.jobs.data_folder import write_whole


def checkpoint_file(folder: Path, job_id: str) -> Path:
    """Return where the network that a training job has trained lies in the data folder."""
    return folder / "checkpoints" / f"{job_id}.pt"


def checkpoints_folder(folder: Path, job_id: str) -> Path:
    """Return where the checkpoints lie from which a training job can go on."""
    return folder / "checkpoints" / job_id


def twin_file(folder: Path, twin_id: str) -> Path:
    """Return where a twin's parameters lie in the data folder."""
    return folder / "twins" / f"{twin_id}.pt"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file is whole or not there."""
    write_whole(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU; raise DataError if it cannot be read."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: truncated or altered ({error})") from error
    return state

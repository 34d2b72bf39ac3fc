"""Files of parameters: plain state dictionaries, read without running any code in them."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from lab.errors import DataError
from lab.jobs.data_folder import write_whole


def checkpoint_name(job_id: str) -> str:
    """Return the name, in the data folder, of the network that a training job has trained."""
    return f"checkpoints/{job_id}.pt"


def checkpoints_name(job_id: str) -> str:
    """Return the name of the folder of the checkpoints from which a training job can go on."""
    return f"checkpoints/{job_id}"


def twin_name(twin_id: str) -> str:
    """Return the name of the file of a twin's parameters."""
    return f"twins/{twin_id}.pt"


def checkpoint_file(folder: Path, job_id: str) -> Path:
    """Return where the network that a training job has trained lies in the data folder."""
    return folder / checkpoint_name(job_id)


def checkpoints_folder(folder: Path, job_id: str) -> Path:
    """Return where the checkpoints lie from which a training job can go on."""
    return folder / checkpoints_name(job_id)


def twin_file(folder: Path, twin_id: str) -> Path:
    """Return where a twin's parameters lie in the data folder."""
    return folder / twin_name(twin_id)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file is whole or not there."""
    write_whole(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU; raise DataError if it cannot be read."""
    try:
        return parsed_state(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def state_bytes(state: dict[str, Any]) -> bytes:
    """Return what `save_state` would write."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def parsed_state(data: bytes, name: str) -> dict[str, Any]:
    """Return the state in a file's content, on the CPU; raise DataError, which says `name`."""
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{name}: truncated or altered ({error})") from error
    return state

"""Files of parameters: plain state dictionaries, read without running any code in them."""

import io
import pickle
from typing import Any

import torch

from lab.errors import DataError
from lab.jobs.files import Files

CHECKPOINTS = "checkpoints"  # folder of trained networks, and of what trainings go on from


def checkpoint_file(job_id: str) -> str:
    """Return the name of the file with the network that a training job has trained."""
    return f"{CHECKPOINTS}/{job_id}.pt"


def checkpoints_folder(job_id: str) -> str:
    """Return the folder of the checkpoints from which a training job can go on."""
    return f"{CHECKPOINTS}/{job_id}"


def twin_file(twin_id: str) -> str:
    """Return the name of the file with a twin's parameters."""
    return f"twins/{twin_id}.pt"


def load_state(files: Files, name: str) -> dict[str, Any]:
    """Read a file of `state_bytes`, onto the CPU; raise DataError if it cannot be read."""
    try:
        data = files.read(name)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{name}: truncated or altered ({error})") from error
    return state


def state_bytes(state: dict[str, Any]) -> bytes:
    """Return the file of tensors and plain values that `load_state` reads."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()

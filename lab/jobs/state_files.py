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


def save_state(files: Files, name: str, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file is whole or not there."""
    content = io.BytesIO()
    torch.save(state, content)
    files.write(name, content.getbuffer())


def load_state(files: Files, name: str) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU; raise DataError if it cannot be read."""
    try:
        content = io.BytesIO(files.read(name))
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{name}: truncated or altered ({error})") from error
    return state

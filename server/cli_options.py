"""Options and arguments that several commands of the command line share."""

import re
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer

from lab.errors import ConfigError

Url = Annotated[str, typer.Option("--url", envvar="PNNLAB_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(help="Job id.")]
Watching = Annotated[bool, typer.Option("--watch", help="Follow it to its end.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and estimate only; start nothing.")]
Priority = Annotated[int | None, typer.Option(help="Higher goes first.")]
Deadline = Annotated[
    str | None,
    typer.Option(help="The job fails then: seconds from now, or a time: 2026-12-24T18:00."),
]
Key = Annotated[str | None, typer.Option(help="The same key answers with the same job.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="To find it by. Repeatable.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training data.")]
Layers = Annotated[int | None, typer.Option(help="Physical layers.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def folder_to_write(folder: Path, option: str) -> Path:
    """Create a folder where it is missing; raise ConfigError if nothing can be written into it.

    For what is written at the end of hours of work: whether it can be is known before.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f"{option} {folder}: cannot be written ({error.strerror})") from error
    return folder


def time_s(text: str | None) -> float | None:
    """Return a time that a user wrote in seconds since the epoch; raise BadParameter."""
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return time.time() + float(text)
    try:
        return datetime.fromisoformat(text).timestamp()  # without a zone: this machine's
    except ValueError as error:
        hint = "neither a number of seconds nor a time such as 2026-12-24T18:00"
        raise typer.BadParameter(f"'{text}' is {hint}", param_hint="--deadline") from error


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given."""
    return {name: value for name, value in fields.items() if value not in (None, {})}

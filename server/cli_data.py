"""The command that gives a service data of one's own: upload."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lab.client import Client
from server.cli_jobs import DEFAULT_URL, AsJson, Url


def upload(
    file: Annotated[Path, typer.Argument(help="npz or CSV file.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Shown in listings; default: the file's.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload a data set; the task that it prints is for configs and --task."""
    with Client(url) as lab:
        kept = lab.upload_dataset(file, name)
    if as_json:
        typer.echo(json.dumps(kept))
        return
    typer.echo(
        f"{kept['task']}  {kept['name']}: {kept['rows']} rows, {kept['features']} features, "
        f"{len(kept['classes'])} classes"
    )

"""The commands that give a service data of one's own, and take out what jobs left: upload, data."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lab.client import Client
from server.cli_options import DEFAULT_URL, AsJson, JobId, Url


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


def data(
    job_id: JobId,
    rows: Annotated[
        Path | None,
        typer.Option(help="Write the measured rows there: a Zarr folder, or one file (.zip)."),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Write the metrics there, as comma-separated values.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Metrics of this kind only, such as epoch.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Take out what a job has left so far; without options say what there is."""
    with Client(url) as lab:
        recorded = lab.recorded(job_id)
        if rows is not None:
            lab.rows(job_id, rows)
        if metrics is not None:
            lab.metrics_csv(job_id, metrics, kind)
    if as_json:
        typer.echo(json.dumps(recorded))
        return
    size = recorded["bytes"] / 1e6
    typer.echo(f"job {job_id}: {recorded['rows']} measured rows are recorded, {size:.1f} MB")
    for note in recorded["notes"]:
        typer.echo(note)
    for written in (rows, metrics):
        if written is not None:
            typer.echo(f"written: {written}")

"""The command submit: start a training job on a running service."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.client import Client
from lab.config import METHODS
from lab.recipes import merged
from server.cli_jobs import follow_to_end
from server.cli_options import (
    DEFAULT_URL,
    AsJson,
    Deadline,
    DryRun,
    Epochs,
    Key,
    Layers,
    Priority,
    Tags,
    Url,
    Watching,
    given,
    time_s,
)
from server.config_files import read_config
from server.dry_run_text import dry_run_lines


def submit(
    config: Annotated[
        Path | None, typer.Option(help="Training config, JSON or TOML; options below win.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Physical system.")] = None,
    task: Annotated[str | None, typer.Option(help="Which data, such as vowels.")] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {', '.join(METHODS)}.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    split: Annotated[str | None, typer.Option(help="random or talker.")] = None,
    epochs: Epochs = None,
    batch: Annotated[int | None, typer.Option(help="Rows of one step.")] = None,
    layers: Layers = None,
    twin: Annotated[str | None, typer.Option(help="Id of a fitted twin.")] = None,
    twin_kind: Annotated[str | None, typer.Option(help="structured or neural.")] = None,
    twin_rows: Annotated[int | None, typer.Option(help="Measured rows to fit it on.")] = None,
    twin_seed: Annotated[int | None, typer.Option(help="Seed of its fit.")] = None,
    priority: Priority = None,
    deadline: Deadline = None,
    key: Key = None,
    tags: Tags = None,
    watching: Watching = False,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Submit a training job; the service checks the config."""
    fields = {
        "system": system,
        "task": task,
        "method": method,
        "seed": seed,
        "split": split,
        "epochs": epochs,
        "batch": batch,
        "network": given({"layers": layers}),
        "twin": given({"id": twin, "kind": twin_kind, "rows": twin_rows, "seed": twin_seed}),
        "priority": priority,
        "deadline_s": time_s(deadline),
    }
    with Client(url) as lab:
        wanted = merged(read_config(config), given(fields))
        answer = lab.submit(wanted, dry_run=dry_run, key=key, tags=tags or ())
        show_submitted(lab, answer, watching=watching, dry_run=dry_run, as_json=as_json)


def show_submitted(
    lab: Client, answer: dict[str, Any], *, watching: bool, dry_run: bool, as_json: bool
) -> None:
    """Print what a submission answered, or follow the job to its end."""
    if watching and not dry_run:
        follow_to_end(lab, answer["id"], as_json)
    elif as_json:
        typer.echo(json.dumps(answer))
    elif dry_run:
        typer.echo("\n".join(dry_run_lines(answer)))
    else:
        typer.echo(f"job {answer['id']} is {answer['state']}")

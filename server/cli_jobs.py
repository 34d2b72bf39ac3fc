"""The commands that talk to a running service: submit, jobs, watch and cancel."""

import json
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.client import Client
from lab.config import METHODS
from lab.recipes import merged
from server.config_files import read_config
from server.dry_run_text import dry_run_lines
from server.job_bar import follow
from server.result_text import result_lines

Url = Annotated[str, typer.Option("--url", envvar="PNNLAB_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(help="Job id.")]
Watching = Annotated[bool, typer.Option("--watch", help="Follow it to its end.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and estimate only; start nothing.")]
DEFAULT_URL = "http://127.0.0.1:8000"
_SHOWN = {
    "train": ("system", "task", "method"),
    "fit": ("system", "kind", "rows"),
    "calibrate": ("system", "rows"),
    "evaluate": ("system", "job"),
}


def submit(
    config: Annotated[
        Path | None, typer.Option(help="Training config, JSON or TOML; options below win.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Physical system.")] = None,
    task: Annotated[str | None, typer.Option(help="Which data, such as vowels.")] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {', '.join(METHODS)}.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    split: Annotated[str | None, typer.Option(help="random or talker.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows of one step.")] = None,
    layers: Annotated[int | None, typer.Option(help="Physical layers.")] = None,
    twin: Annotated[str | None, typer.Option(help="Id of a fitted twin.")] = None,
    twin_kind: Annotated[str | None, typer.Option(help="structured or neural.")] = None,
    twin_rows: Annotated[int | None, typer.Option(help="Measured rows to fit it on.")] = None,
    twin_seed: Annotated[int | None, typer.Option(help="Seed of its fit.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    deadline: Annotated[
        str | None,
        typer.Option(help="The job fails then: seconds from now, or a time: 2026-12-24T18:00."),
    ] = None,
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
        "network": _given({"layers": layers}),
        "twin": _given({"id": twin, "kind": twin_kind, "rows": twin_rows, "seed": twin_seed}),
        "priority": priority,
        "deadline_s": None if deadline is None else _time_s(deadline),
    }
    with Client(url) as lab:
        answer = lab.submit(merged(read_config(config), _given(fields)), dry_run=dry_run)
        show_submitted(lab, answer, watching=watching, dry_run=dry_run, as_json=as_json)


def show_submitted(
    lab: Client, answer: dict[str, Any], *, watching: bool, dry_run: bool, as_json: bool
) -> None:
    """Print what a submission answered, or follow the job to its end."""
    if watching and not dry_run:
        _watch(lab, answer["id"], as_json)
    elif as_json:
        typer.echo(json.dumps(answer))
    elif dry_run:
        typer.echo("\n".join(dry_run_lines(answer)))
    else:
        typer.echo(f"job {answer['id']} is {answer['state']}")


def jobs(
    state: Annotated[str | None, typer.Option(help="Of this state only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    with Client(url) as lab:
        found = lab.jobs(state, limit)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for job in found:
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job["created_s"]))
        typer.echo(f"{job['id']}  {job['state']:9}  {created}  {_summary(job)}".rstrip())


def watch(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Follow a job to its end; exit code 1 unless it succeeds. --json: one event a line."""
    with Client(url) as lab:
        _watch(lab, job_id, as_json)


def cancel(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Cancel a job: at once while it is pending, else between rows and training steps."""
    with Client(url) as lab:
        job = lab.cancel(job_id)
    if as_json:
        typer.echo(json.dumps(job))
    elif job["state"] == "cancelled":
        typer.echo(f"job {job_id} is cancelled")
    else:
        typer.echo(f"job {job_id} will be cancelled after the row or step in flight")


def _watch(lab: Client, job_id: str, as_json: bool) -> None:
    if as_json:
        state = "unknown"
        for event in lab.watch(job_id):
            typer.echo(json.dumps({"event": event.kind, "step": event.step, "data": event.data}))
            state = event.data["state"] if event.kind == "end" else state
    else:
        job = follow(lab, job_id)
        state = job["state"]
        typer.echo(f"job {job_id} {state}" + (f": {job['error']}" if job["error"] else ""))
        if state == "succeeded":
            for line in result_lines(job["kind"], lab.result(job_id)):
                typer.echo(line)
    if state != "succeeded":
        raise typer.Exit(1)


def _summary(job: dict[str, Any]) -> str:
    config = job["config"]
    text = " ".join(str(config[name]) for name in _SHOWN[job["kind"]])
    error = f"  {job['error']}" if job["error"] else ""
    return f"{job['kind']} {text} seed {config['seed']}{error}"


def _time_s(text: str) -> float:
    """Return a time that a user wrote in seconds since the epoch; raise BadParameter."""
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return time.time() + float(text)
    try:
        return datetime.fromisoformat(text).timestamp()  # without a zone: this machine's
    except ValueError as error:
        hint = "neither a number of seconds nor a time such as 2026-12-24T18:00"
        raise typer.BadParameter(f"'{text}' is {hint}", param_hint="--deadline") from error


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given."""
    return {name: value for name, value in fields.items() if value not in (None, {})}

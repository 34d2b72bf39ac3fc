"""The commands of `pnnlab jobs`, and watch and cancel: talk to a running service."""

import json
import time
from typing import Annotated, Any

import typer

from lab.client import Client
from server.cli_options import (
    DEFAULT_URL,
    AsJson,
    Deadline,
    Epochs,
    JobId,
    Priority,
    Url,
    given,
    time_s,
)
from server.job_bar import follow
from server.result_text import result_lines

_SHOWN = {
    "train": ("system", "task", "method", "seed"),
    "fit": ("system", "kind", "rows", "seed"),
    "calibrate": ("system", "rows", "seed"),
    "evaluate": ("system", "job", "seed"),
    "compare": ("system", "task", "methods", "seeds"),
}

_IN_ORDER = "after the row or step in flight"

app = typer.Typer(invoke_without_command=True)


@app.callback()
def jobs(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Of this state only.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs; or show, pause, continue, cancel, rerun one."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    with Client(url) as lab:
        found = lab.jobs(state, limit, tag=tag)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for job in found:
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job["created_s"]))
        typer.echo(f"{job['id']}  {job['state']:9}  {created}  {_summary(job)}".rstrip())


def _refuse_options(context: typer.Context) -> None:
    """Raise BadParameter for an option of the list before another command, which has its own."""
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is not None and source.name == "COMMANDLINE":
            why = f"it comes after '{context.invoked_subcommand}'"
            raise typer.BadParameter(why, context, param_hint=option.opts[0])


@app.command()
def pause(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Pause a job: at once while it is pending, else between training steps."""
    with Client(url) as lab:
        job = lab.pause(job_id)
    _tell(job, "paused", as_json)


@app.command("continue")
def go_on(
    job_id: JobId,
    epochs: Epochs = None,
    rows: Annotated[int | None, typer.Option(help="Hardware rows of the training.")] = None,
    rate_theta: Annotated[
        float | None, typer.Option(help="Learning rate of physical parameters.")
    ] = None,
    rate_digital: Annotated[
        float | None, typer.Option(help="Learning rate of digital ones.")
    ] = None,
    priority: Priority = None,
    deadline: Deadline = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Continue a job that is paused, failed, cancelled or unknown, from its last checkpoint."""
    fields: dict[str, Any] = {"epochs": epochs, "rows": rows, "priority": priority}
    fields |= {"rate_theta": rate_theta, "rate_digital": rate_digital}
    fields |= {"deadline_s": time_s(deadline)}
    with Client(url) as lab:
        job = lab.go_on(job_id, **given(fields))
    typer.echo(json.dumps(job) if as_json else f"job {job_id} is {job['state']}")


def watch(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Follow a job to its end; exit code 1 unless it succeeds. --json: one event a line."""
    with Client(url) as lab:
        follow_to_end(lab, job_id, as_json)


@app.command()
def cancel(
    job_id: JobId,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Without a checkpoint of where it stopped.")
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Cancel a job: at once while it is pending or paused, else between rows and training steps."""
    with Client(url) as lab:
        job = lab.cancel(job_id, at_once=at_once)
    when = "at once, without a checkpoint of where it stopped" if at_once else _IN_ORDER
    _tell(job, "cancelled", as_json, when)


def _tell(job: dict[str, Any], state: str, as_json: bool, when: str = _IN_ORDER) -> None:
    if as_json:
        typer.echo(json.dumps(job))
    elif job["state"] == "running":
        typer.echo(f"job {job['id']} will be {state} {when}")
    else:  # it may have ended meanwhile
        typer.echo(f"job {job['id']} is {job['state']}")


def follow_to_end(lab: Client, job_id: str, as_json: bool) -> None:
    """Follow a job and print what happens; raise Exit unless it succeeds."""
    if as_json:
        state = lab.job(job_id)["state"]  # a service that is not there at all is not waited for
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
    text = " ".join(_shown(name, config[name]) for name in _SHOWN[job["kind"]])
    origin = f"  ({job['origin']})" if job["origin"] else ""
    error = f"  {job['error']}" if job["error"] else ""
    return f"{job['kind']} {text}".rstrip() + origin + error


def _shown(name: str, value: Any) -> str:
    """Return a field of a config as a word or two."""
    if name in ("seed", "seeds"):
        return f"{name} {value}"
    return ",".join(value) if isinstance(value, list) else str(value)

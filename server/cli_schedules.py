"""The commands of `pnnlab schedules`: jobs that start by the clock."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.client import Client
from lab.jobs.kinds import KINDS
from lab.jobs.records import JobKind
from lab.jobs.schedules.records import Missed, Overlap
from lab.recipes import merged
from server.cli_options import DEFAULT_URL, AsJson, Url
from server.config_files import read_config, read_settings

app = typer.Typer(
    help="Start jobs by the clock: add, list, show, pause, continue, run, remove.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the schedule.")]


@app.command()
def add(
    name: Name,
    kind: Annotated[JobKind, typer.Argument(help=f"Kind of its jobs: {', '.join(KINDS)}.")],
    cron: Annotated[
        str, typer.Option(help="Minute, hour, day of the month, month, day of the week.")
    ],
    time_zone: Annotated[
        str | None,
        typer.Option(help="Such as Europe/Zurich.  [default: the service's]", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Config of its jobs, JSON or TOML; --set wins.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A key of the config: rows=300. Repeatable.")
    ] = None,
    missed: Annotated[
        Missed, typer.Option(help="Of missed ticks run the newest late (once), or none (skip).")
    ] = "once",
    overlap: Annotated[
        Overlap, typer.Option(help="While its last job has not ended: skip a tick, or queue it.")
    ] = "skip",
    tag: Annotated[list[str] | None, typer.Option(help="Of its jobs. Repeatable.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Start a job at every tick of a cron expression."""
    fields = merged(read_config(config), read_settings(settings or (), KINDS[kind]))
    options: dict[str, Any] = {"time_zone": time_zone, "missed": missed, "overlap": overlap}
    with Client(url) as lab:
        added = lab.add_schedule(name, cron, kind, fields, **options, tags=tag or ())
    _tell(added, as_json)


@app.command("list")
def list_schedules(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the schedules, by name."""
    with Client(url) as lab:
        found = lab.schedules()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for schedule in found:
        typer.echo(_line(schedule))


@app.command()
def show(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a schedule: its next ticks, its newest jobs, why a tick started none."""
    with Client(url) as lab:
        schedule = lab.schedule(name)
    _tell(schedule, as_json)
    if as_json:
        return
    settings = " ".join(f"{key}={json.dumps(value)}" for key, value in schedule["config"].items())
    typer.echo(f"  config   {settings or 'as the service chooses'}")
    typer.echo(f"  missed   {schedule['missed']}, overlap {schedule['overlap']}")
    typer.echo(f"  ticks    {', '.join(schedule['next_ticks']) or 'none: it is paused'}")
    typer.echo(f"  jobs     {', '.join(schedule['jobs']) or 'none yet'}")


@app.command()
def pause(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Let no more ticks run."""
    with Client(url) as lab:
        schedule = lab.pause_schedule(name)
    _tell(schedule, as_json)


@app.command("continue")
def go_on(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Let a paused schedule's ticks run from now on; those that came meanwhile do not."""
    with Client(url) as lab:
        schedule = lab.continue_schedule(name)
    _tell(schedule, as_json)


@app.command()
def run(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Start a schedule's job now, beside its ticks."""
    with Client(url) as lab:
        job = lab.run_schedule(name)
    typer.echo(json.dumps(job) if as_json else f"job {job['id']} is {job['state']}")


@app.command()
def remove(name: Name, url: Url = DEFAULT_URL) -> None:
    """Forget a schedule; its jobs stay and go on."""
    with Client(url) as lab:
        lab.remove_schedule(name)
    typer.echo(f"removed {name}")


def _tell(schedule: dict[str, Any], as_json: bool) -> None:
    typer.echo(json.dumps(schedule) if as_json else _line(schedule))


def _line(schedule: dict[str, Any]) -> str:
    when = f"'{schedule['cron']}' {schedule['time_zone']}"
    ticks = schedule["next_ticks"]
    state = "paused" if schedule["paused"] else f"next {ticks[0]}" if ticks else "never"
    told = [f"  {schedule[key]}" for key in ("error", "note") if schedule[key]]
    return f"{schedule['name']}  {schedule['kind']}  {when}  {state}{''.join(told)}"

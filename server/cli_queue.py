"""The commands of those who share a system: queue, reserve, release, recover, stop."""

import json
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from lab.client import Client
from lab.held_reservation import HeldReservation
from server.cli_options import DEFAULT_URL, AsJson, Url
from server.interrupts import ended_by_signals

System = Annotated[str, typer.Argument(help="Physical system.")]


def queue(
    system: Annotated[
        str | None, typer.Argument(help="Physical system.  [default: all]", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many passes.")] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the passes that run or wait, with estimated times. --json: a list, one per system."""
    with Client(url) as lab:
        systems = lab.systems() if system is None else [lab.system(system)]
        queues = [lab.queue(s["name"], limit) for s in systems]
    if as_json:
        typer.echo(json.dumps(queues))
        return
    for described, waiting in zip(systems, queues, strict=True):
        _show(described["status"], waiting)


def reserve(
    system: System,
    ttl_s: Annotated[
        float | None,
        typer.Option(
            "--ttl",
            help="Seconds until it ends by itself, 1 to 3600.  [default: 600; --hold: 30]",
            show_default=False,
        ),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="Shown to the others.  [default: user@host]", show_default=False),
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Keep it until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Reserve a system: only passes that name the reservation's number run."""
    with Client(url) as lab, ended_by_signals():
        if ttl_s is None:
            ttl_s = 30.0 if hold else 600.0
        held = lab.reserve(system, ttl_s, owner)
        if not hold:
            _tell(held, as_json)
            return
        with held:
            _tell(held, as_json)
            with suppress(KeyboardInterrupt):
                held.wait()
        typer.echo(f"released {system}", err=True)


def release(
    system: System,
    number: Annotated[int, typer.Argument(help="Number of the reservation.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """End a reservation and the passes under it. --json: the system's status."""
    with Client(url) as lab:
        lab.release(system, number)
        status = lab.system(system)["status"] if as_json else None
    typer.echo(json.dumps(status) if as_json else f"released {system}")


def recover(system: System, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Restart a faulted or stopped system; one that is ok goes on. --json: its status."""
    with Client(url) as lab:
        status = lab.recover(system)
    typer.echo(json.dumps(status) if as_json else f"{system} is {status['state']}")


def stop(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Put every instrument into its safe state at once, whoever uses it; exit code 1 if unsure.

    The systems are out of use until `pnnlab recover`. --json: the outcome of each instrument.
    """
    with Client(url) as lab:
        outcome = lab.stop()
    if as_json:
        typer.echo(json.dumps(outcome))
    else:
        for system in outcome["systems"]:
            for instrument, state in system["instruments"].items():
                typer.echo(f"{system['name']}: {instrument}: {state}")
    if not outcome["confirmed"]:
        raise typer.Exit(1)


def _tell(held: HeldReservation, as_json: bool) -> None:
    granted = held.granted
    # for a program that reads this through a pipe, hence flushed (echo does)
    if as_json:
        typer.echo(json.dumps(granted))
    else:
        typer.echo(f"{held.system} is reserved by {granted['owner']}, number {granted['number']}")


def _show(status: dict[str, Any], queue: dict[str, Any]) -> None:
    row_s = queue["row_time_s"]
    facts = [status["state"], f"{queue['waiting']} passes with {queue['waiting_rows']} rows wait"]
    facts += [] if row_s is None else [f"{row_s:.3g} s a row"]
    if held := status["reservation"]:
        facts.append(f"reserved by {held['owner']} until {_clock(held['expires_s'])}")
    typer.echo(f"{status['name']}: {', '.join(facts)}")
    for p in queue["passes"]:
        when = f"{_clock(p['start_s'])} to {_clock(p['finish_s'])}"
        rows = f"{p['rows_done']}/{p['rows']} rows"
        state = "runs" if p["running"] else "waits"
        typer.echo(
            f"  {when}  {state:5}  {rows:14}  priority {p['priority']:4}  {p['client']}"
            f"  {p['pass_id']}"
        )


def _clock(time_s: float | None) -> str:
    return "--:--:--" if time_s is None else time.strftime("%H:%M:%S", time.localtime(time_s))

"""The commands that look at a device: calibrate and evaluate."""

from typing import Annotated, Any

import typer

from lab.client import Client
from server.cli_options import DEFAULT_URL, AsJson, DryRun, Key, Tags, Url, Watching
from server.cli_submit import show_submitted

Wait = Annotated[
    float, typer.Option("--wait", min=0, help="Of a simulated device: so much older, s.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of a simulated device's noise.")]


def calibrate(
    system: Annotated[str, typer.Argument(help="Physical system.")] = "optics",
    rows: Annotated[int, typer.Option(help="Measure at most so many, in rounds of 16.")] = 240,
    name: Annotated[
        str | None, typer.Option(help="Name of the calibration.  [default: calibrate-JOB]")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply/--no-apply", help="Let it be the one in force.")
    ] = True,
    wait_s: Wait = 0.0,
    seed: Seed = 0,
    key: Key = None,
    tags: Tags = None,
    watching: Watching = False,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Measure levels, noise, response, lag and drift of a system, and what changed since last."""
    fields: dict[str, Any] = {"system": system, "rows": rows, "apply": apply}
    fields |= {"name": name or "", "wait_s": wait_s, "seed": seed}
    with Client(url) as lab:
        answer = lab.calibrate(fields, dry_run=dry_run, key=key, tags=tags or ())
        show_submitted(lab, answer, watching=watching, dry_run=dry_run, as_json=as_json)


def evaluate(
    job_id: Annotated[str, typer.Argument(help="Training job whose network is tested.")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="So many test samples.  [default: all]")
    ] = None,
    span_s: Annotated[
        float, typer.Option("--span", min=0, help="Spread over so much simulated time, s.")
    ] = 0.0,
    wait_s: Wait = 0.0,
    seed: Seed = 0,
    key: Key = None,
    tags: Tags = None,
    watching: Watching = False,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Test a trained network on its device as it is now, beside what its job found."""
    fields: dict[str, Any] = {"job": job_id, "samples": samples, "span_s": span_s}
    fields |= {"wait_s": wait_s, "seed": seed}
    with Client(url) as lab:
        answer = lab.evaluate(fields, dry_run=dry_run, key=key, tags=tags or ())
        show_submitted(lab, answer, watching=watching, dry_run=dry_run, as_json=as_json)

"""The commands of `pnnlab jobs` that look back: show a job with its provenance, and rerun it."""

import json
from typing import Annotated, Any

import typer

from lab.client import Client
from lab.errors import Conflict
from server.cli_jobs import follow_to_end
from server.cli_options import DEFAULT_URL, AsJson, JobId, Key, Url, Watching
from server.job_text import render

RerunTags = Annotated[
    list[str] | None, typer.Option("--tag", help="To find it by.  [default: the job's]")
]


def show(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a job, and where its numbers come from: code, bench, seeds, attempts, ..."""
    with Client(url) as lab:
        job = lab.job(job_id)
        found = _provenance(lab, job_id)
    typer.echo(json.dumps({**job, "provenance": found}) if as_json else render(job, found))


def _provenance(lab: Client, job_id: str) -> dict[str, Any] | None:
    """Return a job's provenance, None where nothing is kept of it, as before its start."""
    try:
        return lab.provenance(job_id)
    except Conflict:
        return None


def rerun(
    job_id: JobId,
    key: Key = None,
    tags: RerunTags = None,
    watching: Watching = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Start the same job again, with all seeds; say what code, bench, ... have changed since."""
    with Client(url) as lab:
        answer = lab.rerun(job_id, key=key, tags=tags or ())
        again = answer["job"]
        if as_json and not watching:
            typer.echo(json.dumps(answer))
        elif not as_json:
            typer.echo(f"job {again['id']} is {again['state']}, the same as {job_id}")
            for difference in answer["differences"]:
                typer.echo(f"other than then: {difference}")
        if watching:
            follow_to_end(lab, again["id"], as_json)

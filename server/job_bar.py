"""Follow one job with a progress bar on the terminal."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from lab.client import Client
from lab.events import Event

_STEPS = ("fit", "epoch", "round", "part", "compared")
_CONTINUE = "waiting until somebody says: pnnlab jobs continue"


def follow(lab: Client, job_id: str) -> dict[str, Any]:
    """Follow a job to its end with a progress bar on stderr; return the job as it ended.

    Of one that is paused it says so, and waits on.
    """
    job = lab.job(job_id)
    with tqdm(total=1, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}") as bar:
        bar.set_description_str(f"{job_id} {job['state']}")
        shown = ""  # a lost connection begins with the state again
        for event in lab.watch(job_id):
            if event.kind == "metric":
                if event.data["kind"] in _STEPS:
                    _advance(bar, job_id, event, paused=shown == "paused")
                else:
                    bar.write(f"{job_id} {_said(event.data)}", file=sys.stderr)
            else:
                job = event.data
                bar.set_description_str(f"{job_id} {job['state']}")
                if job["state"] == "paused" != shown:
                    bar.write(f"{job_id} is {job['error']}; {_CONTINUE} {job_id}", file=sys.stderr)
                shown = job["state"]
    return job


def _advance(bar: Any, job_id: str, event: Event, paused: bool) -> None:
    m = event.data
    what, done, text = _step(m)
    what = "paused" if paused else what  # who comes late is told of what was measured before
    bar.set_postfix_str(text, refresh=False)
    bar.set_description_str(f"{job_id} {what}", refresh=False)
    bar.total, bar.n = m["of"], done
    bar.refresh()


def _step(m: Mapping[str, Any]) -> tuple[str, int, str]:
    """Return what a job does, how far it is, and what it shows."""
    match m["kind"]:
        case "fit":
            return "fits its twin", m["done"], f"loss {_number(m['loss'])}"
        case "round":
            return "calibrates", m["round"], f"{m['rows']} rows"
        case "part":
            return "evaluates", m["done"], f"accuracy {_number(m['accuracy'])}"
        case "compared":
            return "compares", m["done"], f"{m['part']} {m['state']}"
    text = f"accuracy {_number(m['accuracy'])}, loss {_number(m['loss'])}, {m['rows']} rows"
    return "trains", m["step"], text


def _said(metric: Mapping[str, Any]) -> str:
    """Return in words what looked on in training."""
    if metric["kind"] == "drift":
        return (
            f"step {metric['step']}: the device has changed ({metric['statistic']}, "
            f"{_number(metric['value'])} standard deviations, {metric['time_s']:.0f} s)"
        )
    return (
        f"step {metric['step']}: the twin's gradient has a cosine of {_number(metric['cosine'])} "
        f"({_number(metric['low'])} to {_number(metric['high'])}) with the true one"
        + ("; its twin was refitted" if metric["refit"] else "")
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"

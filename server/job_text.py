"""A job and where its numbers come from, as text for the terminal."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 14
_SHORT = 12  # characters of a digest or commit


def render(record: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> str:
    """Return what `pnnlab jobs show` prints: the job as REST answers it, then its provenance.

    Unknown keys are left to `--json`; what a job does not have is left out.
    """
    lines = [*_job(record), *(() if not provenance else _provenance(provenance))]
    return "\n".join(f"{name:<{_WIDTH}} {text}".rstrip() for name, text in lines)


def _job(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "job", f"{job['id']}  {job['kind']}  {job['state']}"
    for key in ("error", "client", "origin", "parent"):
        if job.get(key):
            yield key, str(job[key])
    if job.get("tags"):
        yield "tags", ", ".join(job["tags"])
    for name in ("created", "started", "finished"):
        if job.get(f"{name}_s") is not None:
            yield name, _time(job[f"{name}_s"])
    for name, text in _lines(job["config"], ""):
        yield "config", f"{name} = {text}"


def _provenance(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    code = found["code"]
    commit = f", commit {code['commit'][:_SHORT]}" if code["commit"] else ""
    yield "code", f"{code['version']}{commit}{', changed since' if code['changed'] else ''}"
    yield "host", f"{found['host']}, {found['platform']}, Python {found['python']}"
    versions = [f"{name} {version}" for name, version in found["packages"].items()]
    for first in range(0, len(versions), 5):
        yield "packages" if first == 0 else "", ", ".join(versions[first : first + 5])
    bench = found["bench"]
    yield "bench", f"{bench['name']}, measures as {bench['measurement_digest'][:_SHORT]}"
    if bench["text_digest"]:
        yield "bench file", f"sha256 {bench['text_digest'][:_SHORT]}"
    yield "seeds", ", ".join(f"{name} {seed}" for name, seed in found["seeds"].items())
    for system, name in found["calibrations"].items():
        yield "calibration", f"{system}: {name or 'none'}"
    for name, digest in found["twins"].items():
        yield "twin", f"{name}, parameters {digest[:_SHORT]}"
    for attempt in found.get("attempts", ()):
        when = _time(attempt["started_s"])
        yield "attempt", f"{attempt['attempt']}, run {attempt['run']}, on {attempt['host']}, {when}"
        for change in attempt["changed"]:
            yield "", f"since the first: {change}"


def _lines(part: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Yield a config's keys, dotted; what is not set is left out."""
    for key, value in part.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{path}{key}.")
        elif value not in (None, "", [], ()):
            yield path + key, str(value)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))

"""Following a job on the terminal: its bar, and what looked on in its training."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from lab.client import Client
from lab.events import Event
from server.job_bar import follow


class OneJob:
    """A client that knows one job and its events."""

    def __init__(self, *metrics: dict[str, Any]) -> None:
        self._metrics = metrics

    def job(self, job_id: str) -> dict[str, Any]:
        return {"id": job_id, "state": "running", "config": {}}

    def watch(self, job_id: str) -> Iterator[Event]:
        for step, metric in enumerate(self._metrics):
            yield Event("metric", step, metric)
        yield Event("end", None, {"id": job_id, "state": "succeeded", "error": None})


class PausedTwice(OneJob):
    """It is paused, told so again by a new connection, continued, and paused again."""

    def watch(self, job_id: str) -> Iterator[Event]:
        for state in ("running", "paused", "paused", "pending", "running", "paused", "running"):
            error = "paused by request" if state == "paused" else ""
            yield Event("state", None, {"id": job_id, "state": state, "error": error})
        yield from super().watch(job_id)


def test_a_pause_is_told_once_each_time_and_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(cast(Client, PausedTwice()), "abc")["state"] == "succeeded"
    told = capsys.readouterr().err
    assert told.count("abc is paused by request; waiting until") == 2
    assert "pnnlab jobs continue abc" in told


class PausedBefore(OneJob):
    """It was paused before anybody followed it: its state comes first, then its metrics."""

    def watch(self, job_id: str) -> Iterator[Event]:
        error = "paused by request"
        yield Event("state", None, {"id": job_id, "state": "paused", "error": error})
        yield from super().watch(job_id)


def test_who_comes_while_a_job_is_paused_sees_how_far_it_is_and_that_it_is_paused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    epoch = {"kind": "epoch", "step": 5, "of": 10, "accuracy": 0.5, "loss": 1.0, "rows": 80}
    follow(cast(Client, PausedBefore(epoch)), "abc")
    told = capsys.readouterr().err
    assert "abc paused:  50%" in told
    assert "trains" not in told


def test_audits_and_drifts_are_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    epoch = {"kind": "epoch", "step": 5, "of": 10, "accuracy": 0.5, "loss": 1.0, "rows": 80}
    audit = {"kind": "audit", "step": 6, "cosine": 0.71, "low": 0.4, "high": 0.9, "refit": False}
    worse = {**audit, "step": 8, "cosine": 0.1, "low": -0.2, "high": 0.3, "refit": True}
    drift = {"kind": "drift", "step": 9, "statistic": "twin error", "value": 12.3, "time_s": 60.0}
    job = follow(cast(Client, OneJob(epoch, audit, worse, drift)), "abc")
    assert job["state"] == "succeeded"
    told = capsys.readouterr().err
    assert "abc step 6: the twin's gradient has a cosine of 0.710 (0.400 to 0.900)" in told
    assert "step 8" in told
    assert told.count("its twin was refitted") == 1
    assert "step 9: the device has changed (twin error, 12.300 standard deviations, 60 s)" in told

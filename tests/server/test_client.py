"""The client against a service on the loopback."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa
import torch

import lab.calls
import lab.tries
from lab.client import Client, ServiceError
from lab.config import TrainConfig
from lab.errors import ConfigError, Conflict, DatabaseAway, SystemFaulted, UnknownName
from lab.events import Event, read_events
from lab.jobs.store import Store
from lab.jobs.tables import jobs, metrics
from lab.problems import problem_type
from server.app import create_app

ROWS = {"x": np.full((3, 50), 0.5), "theta": np.zeros((3, 50))}


@pytest.fixture
def unhealing(reconfigured, tmp_path, serve_in_thread) -> Iterator[Client]:
    """Return a client of a service whose system stays faulted until it is recovered."""
    app = create_app(reconfigured(recovery_attempts=0), data_dir=tmp_path)
    with serve_in_thread(app) as url, Client(url, name="tests") as client:
        yield client


def test_measuring_and_recovering(unhealing, faulty):
    client = unhealing
    [system] = client.systems()
    assert client.system("optics")["x"] == system["x"]
    measured = client.measure("optics", **ROWS)
    assert measured["y"].shape == (3, 50)
    assert (measured["shots"].tolist(), measured["system"]) == ([0, 1, 2], "optics")
    for flag in ("saturated", "retried", "out_of_sync"):
        assert measured[flag].tolist() == [False] * 3
    assert measured["row_s"].shape == (3,)
    assert measured["calibration"] == ""
    with pytest.raises(ServiceError, match=r"1\.5 relative field") as refused:
        client.measure("optics", np.full((1, 50), 1.5), np.zeros((1, 50)))
    assert refused.value.status == 422
    assert refused.value.problem["errors"][0]["pointer"] == "#/x"

    with faulty(), pytest.raises(ServiceError, match="no answer in 5 s") as failed:
        client.measure("optics", **ROWS)
    assert failed.value.status == 504
    with pytest.raises(SystemFaulted, match="no answer in 5 s"):
        client.measure("optics", **ROWS)
    assert client.recover("optics")["state"] == "ok"
    assert client.measure("optics", **ROWS)["shots"].tolist() == [4, 5, 6]


def test_a_job_from_submission_to_checkpoint(client, job_body, tmp_path):
    job = client.submit(TrainConfig.model_validate(job_body))
    events = list(client.watch(job["id"]))
    assert [e.step for e in events if e.kind == "metric"] == list(range(1, events[-2].step + 1))
    assert events[-1].kind == "end"
    assert events[-1].data["state"] == "succeeded"
    assert events[-1].data["client"] == "tests"
    metrics = client.metrics(job["id"])
    assert [m["metric"] for m in metrics] == [e.data for e in events if e.kind == "metric"]
    assert client.metrics(job["id"], since=2) == metrics[2:]
    assert client.result(job["id"])["method"] == "pat"
    path = client.checkpoint(job["id"], tmp_path / "network.pt")
    assert "network" in torch.load(path, weights_only=True)
    assert [j["id"] for j in client.jobs(state="succeeded")] == [job["id"]]
    assert client.job(job["id"]) == events[-1].data
    with pytest.raises(Conflict):
        client.cancel(job["id"])


def test_a_job_of_many_metrics_is_read_page_by_page(bench, tmp_path, serve_in_thread):
    with Store(tmp_path) as store, store.engine.begin() as connection:
        connection.execute(
            sa.insert(jobs).values(
                id="a", kind="train", state="succeeded", config={}, client="", error="", created_s=0
            )
        )
        steps = range(1, 2502)
        rows = [{"job_id": "a", "step": step, "metric": {"loss": step}} for step in steps]
        connection.execute(sa.insert(metrics), rows)
    with serve_in_thread(create_app(bench, data_dir=tmp_path)) as url, Client(url) as client:
        found = client.metrics("a")
        events = list(client.watch("a"))
    assert found == [{"step": step, "metric": {"loss": step}} for step in steps]
    assert [event.step for event in events] == [*steps, None]


@pytest.mark.parametrize(
    ("url", "trusts"), [("http://127.0.0.2:1", False), ("http://lab.example", True)]
)
def test_a_proxy_is_not_asked_for_this_machine(monkeypatch, url, trusts):
    options = {}
    monkeypatch.setattr(lab.calls.httpx, "Client", lambda **given: options.update(given))
    Client(url)
    assert options["trust_env"] is trusts


def test_twins_and_cancelling(client, job_body):
    fit = client.fit_twin(kind="neural", rows=20)
    assert list(client.watch(fit["id"]))[-1].data["state"] == "succeeded"
    twin = client.result(fit["id"])["twin"]
    assert client.twins() == [client.twin(twin)]
    job = client.submit(job_body, epochs=10_000, twin={"id": twin})
    for event in client.watch(job["id"]):  # live: the job would run for hours
        if event.kind == "metric":
            client.cancel(job["id"])
            break
    assert list(client.watch(job["id"]))[-1].data["state"] == "cancelled"
    with pytest.raises(UnknownName, match="no job 'nope'"):
        next(client.watch("nope"))
    with pytest.raises(ConfigError, match=r"epochs: .*greater than or equal to 1"):
        client.submit(epochs=0)
    with pytest.raises(TypeError, match="FitConfig is needed"):
        client.fit_twin(TrainConfig())


def test_no_service_is_said_in_one_line():
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="no answer"):
        client.systems()


def test_the_client_brings_neither_torch_nor_drivers():
    code = "import sys, lab.client; print([m for m in ('torch', 'drivers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@contextmanager
def scripted(answers: list[tuple[int, str, str]]) -> Iterator[tuple[str, list[str | None]]]:
    """Serve scripted (status, type, body) answers; give the address and the last ids asked with."""
    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Last-Event-ID"])
            status, kind, body = answers[len(asked) - 1]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def metric_text(step: int) -> str:
    data = json.dumps({"step": step, "metric": {"loss": 0.5}})
    return f"event: metric\ndata: {data}\nid: {step}\n\n"


END = 'event: end\ndata: {"state": "succeeded"}\n\n'


def test_watching_goes_on_after_a_lost_connection(monkeypatch):
    monkeypatch.setattr(lab.tries, "_FIRST_PAUSE_S", 0.001)
    stream = "text/event-stream"
    answers = [
        (200, stream, metric_text(1) + metric_text(2) + metric_text(3)[:-2]),
        (200, stream, ": ping\n\n"),
        (200, stream, metric_text(3) + END),
    ]
    with scripted(answers) as (url, asked), Client(url) as client:
        events = list(client.watch("a"))
    assert [(e.kind, e.step) for e in events] == [
        ("metric", 1),
        ("metric", 2),
        ("metric", 3),
        ("end", None),
    ]
    assert asked == ["0", "2", "2"]


def test_watching_ends_with_an_error_when_the_service_stays_away(monkeypatch):
    clock = [0.0]
    steady = SimpleNamespace(
        monotonic=lambda: clock[0], sleep=lambda s: clock.append(clock.pop() + s)
    )
    monkeypatch.setattr(lab.tries, "time", steady)
    with (
        scripted([(200, "text/event-stream", "")] * 100) as (url, asked),
        Client(url) as client,
        pytest.raises(ServiceError, match="ended the stream"),
    ):
        list(client.watch("a", patience_s=20.0))
    assert 18.0 <= clock[0] <= 20.0
    assert len(asked) > 10


def test_watching_waits_for_a_service_that_is_stopping_or_without_its_database(monkeypatch):
    monkeypatch.setattr(lab.tries, "_FIRST_PAUSE_S", 0.001)
    away = {"type": problem_type(DatabaseAway), "title": "", "status": 503, "retry_after_s": 1.0}
    problem = json.dumps({**away, "detail": "the database is out of reach"})
    answers = [(503, "application/problem+json", problem), (200, "text/event-stream", END)]
    with scripted(answers) as (url, _), Client(url) as client:
        assert [e.kind for e in client.watch("a")] == ["end"]


@pytest.mark.parametrize("body", ["<html>", "[]", '{"error": 1}'])
def test_an_error_that_is_no_problem_details_is_an_error_still(body):
    with (
        scripted([(502, "text/html", body)]) as (url, _),
        Client(url) as client,
        pytest.raises(ServiceError, match="HTTP 502"),
    ):
        client.systems()


def test_events_are_read_as_the_standard_says():
    text = ': hello\n\nevent:end\ndata:{"a":\ndata: 1}\n\ndata: {}\n\nevent: cut\ndata: {}\n'
    assert list(read_events(text.split("\n")[:-1])) == [
        Event("end", None, {"a": 1}),
        Event("message", None, {}),
    ]

"""Jobs and twins over HTTP."""

import io
import json

import pytest
import torch

from lab.config import TrainConfig
from lab.events import read_events

pytestmark = pytest.mark.anyio


@pytest.fixture
async def done(http, job_body, follow):
    """Return a training job that has succeeded."""
    submitted = (await http.post("/jobs", json=job_body, headers={"Pnnlab-Client": "ann"})).json()
    job = await follow(submitted["id"])
    assert job["state"] == "succeeded", job["error"]
    return job


async def test_submitting_answers_at_once_with_the_job(http, job_body):
    response = await http.post("/jobs", json=job_body)
    assert response.status_code == 202
    job = response.json()
    assert job["state"] == "pending"
    assert job["config"] == TrainConfig.model_validate(job_body).model_dump(mode="json")
    assert (await http.get(f"/jobs/{job['id']}")).json()["id"] == job["id"]


async def test_a_finished_job_has_result_metrics_and_checkpoint(http, done):
    assert (done["client"], done["error"]) == ("ann", "")
    assert done["created_s"] <= done["started_s"] <= done["finished_s"]
    result = (await http.get(f"/jobs/{done['id']}/result")).json()
    metrics = (await http.get(f"/jobs/{done['id']}/metrics")).json()
    epochs = [m["metric"] for m in metrics if m["metric"]["kind"] == "epoch"]
    assert [m["loss"] for m in epochs] == [m["loss"] for m in result["curve"]]
    assert [len(row) for row in result["confusion"]] == [3, 3, 3]
    assert done["last_step"] == metrics[-1]["step"] == len(metrics)
    response = await http.get(f"/jobs/{done['id']}/checkpoint")
    assert f'filename="{done["id"]}.pt"' in response.headers["content-disposition"]
    checkpoint = torch.load(io.BytesIO(response.content), weights_only=True)
    assert checkpoint["classes"] == ["a", "b", "c"]


async def test_metrics_since_a_step(http, done):
    path = f"/jobs/{done['id']}/metrics"
    every = (await http.get(path)).json()
    assert (await http.get(path, params={"since": 2})).json() == every[2:]
    assert (await http.get(path, params={"since": 1, "limit": 1})).json() == every[1:2]
    assert (await http.get(path, params={"since": 10**6})).json() == []


async def test_events_byte_for_byte(http, done):
    response = await http.get(f"/jobs/{done['id']}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    *metrics, end, rest = response.text.split("\n\n")
    assert rest == ""
    first = (await http.get(f"/jobs/{done['id']}/metrics")).json()[0]
    name, data, number = metrics[0].split("\n")
    assert (name, number) == ("event: metric", "id: 1")
    assert json.loads(data.removeprefix("data: ")) == first
    name, data = end.split("\n")
    assert name == "event: end"
    assert json.loads(data.removeprefix("data: ")) == done


async def test_events_go_on_after_the_last_one_seen(http, done):
    path = f"/jobs/{done['id']}/events"
    last = done["last_step"]
    for options in ({"headers": {"Last-Event-ID": str(last - 1)}}, {"params": {"since": last - 1}}):
        response = await http.get(path, **options)
        events = list(read_events(response.text.split("\n")))
        assert [(event.kind, event.step) for event in events] == [("metric", last), ("end", None)]


async def test_cancelling(http, job_body, follow):
    job = (await http.post("/jobs", json={**job_body, "epochs": 10_000})).json()
    response = await http.post(f"/jobs/{job['id']}/cancel")
    assert response.status_code == 202
    ended = await follow(job["id"])
    assert (ended["state"], ended["error"]) == ("cancelled", "cancelled by request")
    again = await http.post(f"/jobs/{job['id']}/cancel")
    assert (again.status_code, again.json()["type"]) == (409, "urn:pnnlab:problem:conflict")


async def test_jobs_are_listed_by_state_and_number(http, job_body, follow):
    ids = [(await http.post("/jobs", json=job_body)).json()["id"] for _ in range(3)]
    for job_id in ids:
        await follow(job_id)
    listed = (await http.get("/jobs", params={"state": "succeeded", "limit": 2})).json()
    assert [job["id"] for job in listed] == ids[:0:-1]
    assert (await http.get("/jobs", params={"state": "failed"})).json() == []


@pytest.mark.parametrize("ending", ["", "/metrics", "/events", "/result", "/checkpoint"])
async def test_an_unknown_job_gets_404(http, ending):
    response = await http.get(f"/jobs/nope{ending}")
    assert response.status_code == 404
    assert response.json()["detail"] == "no job 'nope'"


@pytest.mark.parametrize("ending", ["result", "checkpoint"])
async def test_a_job_without_a_result_gets_409(http, job_body, follow, ending):
    job = (await http.post("/jobs", json={**job_body, "epochs": 10_000})).json()
    response = await http.get(f"/jobs/{job['id']}/{ending}")
    assert (response.status_code, response.json()["type"]) == (409, "urn:pnnlab:problem:conflict")
    await http.post(f"/jobs/{job['id']}/cancel")
    await follow(job["id"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"epochs": 0}, "#/epochs"),
        ({"twin": {"rows": 3}}, "#/twin/rows"),
        ({"method": "magic"}, "#/method"),
        ({"epoch": 3}, "#/epoch"),
        ({"network": {"layers": "five"}}, "#/network/layers"),
    ],
)
async def test_a_config_that_cannot_be_used_names_the_field(http, body, pointer):
    response = await http.post("/jobs", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert (await http.get("/jobs")).json() == []


async def test_metrics_come_in_pages(http, done):
    """Many at once would hold up the event loop."""
    path = f"/jobs/{done['id']}/metrics"
    assert (await http.get(path, params={"limit": 1000})).status_code == 200
    response = await http.get(path, params={"limit": 1001})
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == ["limit"]


async def test_a_query_that_cannot_be_used_names_the_parameter(http):
    response = await http.get("/jobs", params={"limit": 0, "state": "asleep"})
    assert response.status_code == 422
    assert {error["parameter"] for error in response.json()["errors"]} == {"limit", "state"}


async def test_a_body_that_is_no_json_is_refused(http):
    headers = {"Content-Type": "application/json"}
    response = await http.post("/jobs", content=b"{", headers=headers)
    assert (response.status_code, response.json()["status"]) == (422, 422)


async def test_a_twin_is_fitted_listed_and_used(http, job_body, follow):
    body = {"kind": "neural", "rows": 20, "seed": 5, "task": "digits"}
    fit = (await http.post("/twins", json=body)).json()
    assert fit["kind"] == "fit"
    assert (await follow(fit["id"]))["state"] == "succeeded"
    result = (await http.get(f"/jobs/{fit['id']}/result")).json()
    twin = (await http.get(f"/twins/{result['twin']}")).json()
    assert (twin["kind"], twin["rows"], twin["seed"], twin["job"]) == ("neural", 20, 5, fit["id"])
    assert twin["report"] == result["report"]
    assert set(twin["report"]["task"]) == {"r2", "normalised", "shape_r2"}
    assert (await http.get("/twins")).json() == [twin]
    job = (await http.post("/jobs", json={**job_body, "twin": {"id": twin["id"]}})).json()
    assert (await follow(job["id"]))["state"] == "succeeded"
    assert (await http.get(f"/jobs/{job['id']}/result")).json()["twin"] == twin["id"]
    checkpoint = await http.get(f"/jobs/{fit['id']}/checkpoint")
    assert (checkpoint.status_code, checkpoint.json()["status"]) == (409, 409)


@pytest.mark.parametrize("seed", [-1, 2**31, 2**63])
async def test_a_seed_out_of_range_is_refused_with_its_field(http, seed):
    for path in ("/twins", "/jobs"):
        response = await http.post(path, json={"seed": seed})
        assert response.status_code == 422
        assert [error["pointer"] for error in response.json()["errors"]] == ["#/seed"]


async def test_an_unknown_twin_gets_404(http, job_body):
    response = await http.post("/jobs", json={**job_body, "twin": {"id": "nope"}})
    assert (response.status_code, response.json()["detail"]) == (404, "no twin 'nope'")
    assert (await http.get("/twins/nope")).status_code == 404

"""Jobs where they share the hardware: whose rows, full queues, deadlines, estimates."""

import asyncio
import time

import pytest

import lab.jobs.performing
from lab.errors import DeadlineMissed, QueueFull
from lab.jobs.live_job import LiveJob
from lab.scheduling.scheduler import HardwareScheduler

pytestmark = pytest.mark.anyio

LONG = {"epochs": 10_000}
MISSED = "DeadlineMissed: the job's deadline has passed"


async def submitted(http, body: dict, path: str = "/jobs", **headers: str) -> str:
    response = await http.post(path, json=body, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()["id"]


async def running(http, job_id: str) -> dict:
    """Return a job once it has measured rows in training, or has ended."""
    while True:
        job = (await http.get(f"/jobs/{job_id}")).json()
        if job["estimate"] is None or job["estimate"]["finish_s"] is not None:
            return job


async def test_a_jobs_rows_count_as_its_clients(http, job_body, follow, monkeypatch):
    seen, measure = [], HardwareScheduler.measure_soon

    def watched(scheduler, forward_pass, stopped):
        seen.append((forward_pass.client, forward_pass.deadline_s, forward_pass.priority))
        return measure(scheduler, forward_pass, stopped)

    monkeypatch.setattr(HardwareScheduler, "measure_soon", watched)
    deadline_s = time.time() + 600
    fields = {"deadline_s": deadline_s, "priority": 3}
    fit = {"kind": "neural", "rows": 20, **fields}
    await follow(await submitted(http, fit, "/twins", **{"Pnnlab-Client": "ann@lab"}))
    await follow(await submitted(http, {**job_body, **fields}, **{"Pnnlab-Client": "ann@lab"}))
    assert set(seen) == {("ann@lab", deadline_s, 3)}
    seen.clear()
    await follow(await submitted(http, job_body))
    assert set(seen) == {("http", None, 0)}


async def test_a_job_waits_for_a_full_queue(http, job_body, follow, monkeypatch):
    refusals, measure = iter([True] * 3), HardwareScheduler.measure_soon

    def narrow(scheduler, *args):
        if next(refusals, False):
            raise QueueFull("optics: full", 0.001)
        return measure(scheduler, *args)

    monkeypatch.setattr(HardwareScheduler, "measure_soon", narrow)
    job = await follow(await submitted(http, job_body))
    assert (job["state"], job["error"]) == ("succeeded", "")
    assert next(refusals, None) is None


async def test_a_job_that_waits_for_a_full_queue_can_be_cancelled(
    http, job_body, follow, monkeypatch
):
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def full(*args):
        loop.call_soon_threadsafe(tried.set)
        raise QueueFull("optics: full", 3600.0)

    monkeypatch.setattr(HardwareScheduler, "measure_soon", full)
    job_id = await submitted(http, job_body)
    await tried.wait()
    await http.post(f"/jobs/{job_id}/cancel")
    assert (await follow(job_id))["error"] == "cancelled by request"


# --- deadlines ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pat", "in-silico"])
async def test_a_job_fails_at_its_deadline(http, job_body, follow, method):
    twin = (await follow(await submitted(http, job_body)))["id"]
    twin = (await http.get(f"/jobs/{twin}/result")).json()["twin"]
    body = {**job_body, **LONG, "method": method, "twin": {"id": twin}}
    job = await follow(await submitted(http, {**body, "deadline_s": time.time() + 0.5}))
    assert (job["state"], job["error"]) == ("failed", MISSED)


async def test_a_pending_job_fails_at_its_deadline(app, http, job_body, follow):
    busy = [await submitted(http, {**job_body, **LONG}) for _ in range(2)]
    job_id = await submitted(http, {**job_body, "deadline_s": time.time() + 0.3})
    job = await follow(job_id)
    assert (job["state"], job["error"], job["started_s"]) == ("failed", MISSED, None)
    for other in busy:
        assert (await http.post(f"/jobs/{other}/cancel")).status_code == 202
        await follow(other)


async def test_a_pass_may_notice_the_deadline_first(http, job_body, follow, monkeypatch, caplog):
    def late(*args):
        raise DeadlineMissed("pass a on optics ended after 0 of 20 rows")

    monkeypatch.setattr(HardwareScheduler, "measure_soon", late)
    job = await follow(await submitted(http, {**job_body, "deadline_s": time.time() + 600}))
    assert (job["state"], job["error"]) == ("failed", MISSED)


@pytest.mark.parametrize("path", ["/jobs", "/twins"])
async def test_a_deadline_in_the_past_is_refused_at_once(http, path):
    response = await http.post(path, json={"deadline_s": 60.0})
    assert response.status_code == 504
    assert response.json()["type"] == "urn:pnnlab:problem:deadline-missed"
    assert (await http.get("/jobs")).json() == []


@pytest.mark.parametrize("deadline", ["0", "1e999", "NaN", '"soon"'])
async def test_a_deadline_that_is_no_time_is_refused_with_its_field(http, deadline):
    body = f'{{"deadline_s": {deadline}}}'
    headers = {"Content-Type": "application/json"}
    response = await http.post("/jobs", content=body, headers=headers)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/deadline_s"]


async def test_the_deadline_of_a_job_that_has_ended_is_nobodys(app, lives, http, job_body, follow):
    job_id = await submitted(http, {**job_body, "deadline_s": time.time() + 600})
    await follow(job_id)
    await app.state.lab.jobs.close()  # waits until nothing more is done about the job
    assert lives[job_id].deadline._handle.cancelled()


@pytest.fixture
def lives(monkeypatch):
    """Return every job that is worked on, by its id, also after its end."""
    found = {}

    class Kept(LiveJob):
        def __init__(self, record, *rest) -> None:
            super().__init__(record, *rest)
            found[self.id] = self

    monkeypatch.setattr(lab.jobs.performing, "LiveJob", Kept)
    return found


# --- estimates ------------------------------------------------------------------------------


async def test_a_running_job_says_how_far_it_is(http, job_body, follow):
    alone = {"audit": False, "sentinels": False}
    job_id = await submitted(http, {**job_body, **LONG, **alone})
    job = await running(http, job_id)
    estimate = job["estimate"]
    assert 0 < estimate["rows_done"] < estimate["rows_planned"]
    # 24 samples, of which 16 train, through one layer; the first 16 set its scales; the test's 8
    # once more for the twin's error
    assert estimate["rows_planned"] == (16 + 10_000 * 16 + 8 + 8) + (20 + 100 + 16)
    assert estimate["start_s"] == job["started_s"]
    assert estimate["finish_s"] > time.time()
    [listed] = (await http.get("/jobs")).json()
    assert listed["estimate"]["rows_planned"] == estimate["rows_planned"]
    await http.post(f"/jobs/{job_id}/cancel")
    assert (await follow(job_id))["estimate"] is None


@pytest.mark.parametrize("holdout", ["test", "validation"])
@pytest.mark.parametrize("method", ["pat", "pat-refit", "ideal", "in-silico", "in-silico-noise"])
async def test_as_many_rows_are_measured_as_are_planned(
    lives, http, job_body, follow, method, holdout
):
    fields = {"method": method, "holdout": holdout, "network": {"layers": 2}}
    for twin_is_fitted in (True, False):
        job_id = await submitted(http, {**job_body, **fields})
        assert (await follow(job_id))["state"] == "succeeded"
        estimate = lives[job_id].rows.estimate(None)
        assert estimate.rows_done == estimate.rows_planned
        if not twin_is_fitted and method.startswith("in-silico"):
            assert estimate.finish_s is None


async def test_a_fit_says_how_many_rows_it_measures(lives, http, follow):
    for task, rows in ((None, 120), ("vowels", 136)):
        job_id = await submitted(http, {"kind": "neural", "rows": 20, "task": task}, "/twins")
        assert (await follow(job_id))["state"] == "succeeded"
        progress = lives[job_id].rows
        assert progress.estimate(None).rows_done == progress.estimate(None).rows_planned == rows


async def test_a_pending_job_starts_when_a_worker_should_be_free(http, job_body, follow):
    first = await submitted(http, {**job_body, **LONG})
    second = await submitted(http, {**job_body, "epochs": 9_000})
    ends = [(await running(http, job))["estimate"]["finish_s"] for job in (first, second)]
    pending = [await submitted(http, {**job_body, "seed": seed}) for seed in range(3)]
    shown = [(await http.get(f"/jobs/{job}")).json()["estimate"] for job in pending]
    assert [e["rows_planned"] for e in shown] == [None] * 3
    assert None not in (shown[0]["start_s"], shown[1]["start_s"])
    assert time.time() < shown[0]["start_s"] < shown[1]["start_s"]
    assert shown[2]["start_s"] is None
    assert min(ends) > time.time()
    for job in [*pending, first, second]:
        await http.post(f"/jobs/{job}/cancel")
        await follow(job)


async def test_the_same_key_answers_with_the_same_job_also_after_its_deadline(http, job_body):
    """Whoever lost the answer asks again, and may do so late."""
    deadline_s = time.time() + 2.0
    key = {"Idempotency-Key": "once"}
    first = await submitted(http, {**job_body, **LONG, "deadline_s": deadline_s}, **key)
    while time.time() <= deadline_s:
        await asyncio.sleep(0.1)
    again = await http.post(
        "/jobs", json={**job_body, **LONG, "deadline_s": deadline_s}, headers=key
    )
    assert (again.status_code, again.json().get("id")) == (202, first)
    other = await http.post("/jobs", json={**job_body, "deadline_s": deadline_s}, headers=key)
    assert other.status_code == 409

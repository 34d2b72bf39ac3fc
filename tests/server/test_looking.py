"""Calibrations, evaluations and dry runs: over HTTP, by the client and on the command line."""

import json

import pytest
from typer.testing import CliRunner

from server.cli import app


def pnnlab(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def lab(client, monkeypatch):
    """Return a client, whose service the commands talk to as well."""
    monkeypatch.setenv("PNNLAB_URL", client.url)
    return client


def end(lab, job: dict) -> dict:
    *_, last = lab.watch(job["id"])
    assert last.data["state"] == "succeeded", last.data["error"]
    return lab.result(job["id"])


def test_a_calibration_is_in_force_and_the_next_is_compared_with_it(lab):
    first = pnnlab("calibrate", "optics", "--rows", "128", "--name", "monday", "--watch")
    assert "calibration monday, in force" in first.stdout
    assert "there is none before" in first.stdout
    assert "calibrates" in first.stderr
    assert lab.system("optics")["status"]["calibration"] == "monday"
    hour = ("--rows", "128", "--no-apply", "--wait", "3600", "--watch")
    assert "since monday: " in pnnlab("calibrate", *hour).stdout
    assert lab.system("optics")["status"]["calibration"] == "monday"
    jobs = pnnlab("jobs").stdout
    assert jobs.count("calibrate optics 128 seed 0") == 2


def test_a_trained_network_is_evaluated(lab, job_body):
    job = lab.submit(job_body)
    trained = end(lab, job)
    shown = pnnlab("evaluate", job["id"], "--samples", "5", "--watch")
    assert "of 5 samples" in shown.stdout
    assert f"accuracy in its job      {100 * trained['test_accuracy']:.1f} %" in shown.stdout
    assert f"evaluate optics {job['id']} seed 0" in pnnlab("jobs").stdout
    found = end(lab, lab.evaluate(job=job["id"], seed=1))
    assert found["samples"] == sum(map(sum, trained["confusion"]))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/calibrations", {"rows": 127}, 422, "rows"),
        ("/calibrations", {"system": "nope"}, 404, "no system 'nope'"),
        ("/evaluations", {"job": "nope"}, 404, "no job 'nope'"),
        ("/evaluations", {}, 422, "job"),
        ("/comparisons", {}, 422, "methods"),
        ("/comparisons", {"methods": ["pat"], "twin_kind": "filter"}, 422, "kind"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_cannot_be_done_is_refused(http, path, body, status, says, dry_run):
    response = await http.post(path, json=body, params={"dry_run": dry_run})
    assert response.status_code == status
    assert says in response.text
    assert (await http.get("/jobs")).json() == []


@pytest.mark.anyio
async def test_a_job_without_a_network_gets_409(http, job_body, follow):
    job = (await http.post("/jobs", json={**job_body, "epochs": 10_000})).json()
    response = await http.post("/evaluations", json={"job": job["id"]})
    assert response.status_code == 409
    assert "has no trained network" in response.json()["detail"]
    await http.post(f"/jobs/{job['id']}/cancel")
    await follow(job["id"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "purposes"),
    [
        ("/jobs", {"method": "pat"}, {"twin", "initialisation", "training", "test"}),
        ("/twins", {"rows": 20}, {"twin"}),
        ("/calibrations", {}, {"calibration"}),
    ],
)
async def test_a_dry_run_answers_200_and_starts_nothing(http, path, body, purposes):
    response = await http.post(path, json=body, params={"dry_run": True})
    assert response.status_code == 200
    said = response.json()
    assert set(said["rows"]) >= purposes
    assert said["rows_planned"] == sum(said["rows"].values()) <= said["rows_at_most"]
    assert said["config"]["system"] == "optics"
    assert (await http.get("/jobs")).json() == []


def test_dry_runs_on_the_command_line(lab, job_body, tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job_body))
    submit = ("submit", "--config", str(path), "--dry-run")
    lines = pnnlab(*submit, "--watch").stdout.splitlines()
    said = json.loads(pnnlab(*submit, "--json").stdout)
    assert said == lab.submit(job_body, dry_run=True)
    assert [line.split()[0] for line in lines[: len(said["rows"])]] == list(said["rows"])
    assert any(line.split()[:3] == ["in", "all", str(said["rows_planned"])] for line in lines)
    assert any("computing" in line for line in lines)
    lines = pnnlab("calibrate", "--dry-run").stdout.splitlines()
    assert "time of the rows     3 min, 750 ms each" in lines
    assert lab.jobs() == []
    trained = end(lab, lab.submit(job_body))
    lines = pnnlab(*submit).stdout.splitlines()
    assert f"twin                 {trained['twin']}, fitted already" in lines


def test_a_comparison_over_rest_and_on_the_command_line(lab):
    small = ("--methods", "pat", "--epochs", "1", "--layers", "1", "--twin-rows", "20")
    options = (*small, "--twin-kind", "neural", "--controls", "none", "--seeds", "1")
    shown = pnnlab("compare", *options, "--url", lab.url)
    assert "on optics, gap 1" in shown.stdout
    [job] = [job for job in lab.jobs() if job["kind"] == "compare"]
    result = lab.result(job["id"])
    assert {part["id"] for part in lab.jobs(parent=job["id"])} == set(result["parts"].values())
    assert "compare optics vowels pat seeds 1" in pnnlab("jobs").stdout
    again = lab.compare(job["config"], key="once", tags=["week-3"])
    assert lab.compare(job["config"], key="once")["id"] == again["id"]
    assert pnnlab("watch", again["id"]).stdout.count("pat") >= 1
    cost = lab.compare(job["config"], dry_run=True)
    assert cost["rows"]["twin"] > 20
    assert len(lab.jobs()) == 6

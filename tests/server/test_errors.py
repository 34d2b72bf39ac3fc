"""Every error is problem details, and OpenAPI says what the service does."""

from pathlib import Path

import pytest

import drivers.errors
import lab.errors
from drivers.errors import DriverError
from lab.errors import LabError, QueueFull
from server.errors import STATUS
from server.openapi import schema_text

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def kinds(module, base) -> list[type[Exception]]:
    return [k for k in vars(module).values() if isinstance(k, type) and issubclass(k, base)]


@pytest.mark.parametrize("kind", kinds(lab.errors, LabError) + kinds(drivers.errors, DriverError))
def test_every_error_of_lab_and_drivers_has_its_status(kind):
    assert kind in STATUS


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nope", 404, "not-found"),
        ("DELETE", "/systems", 405, "method-not-allowed"),
        ("GET", "/jobs/a/cancel", 405, "method-not-allowed"),
    ],
)
async def test_http_errors_are_problem_details(http, method, path, status, name):
    response = await http.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:pnnlab:problem:{name}"
    assert (problem["status"], problem["title"]) == (status, name.replace("-", " ").capitalize())
    assert f"{method} /api/v1{path}" in problem["detail"]


async def test_a_405_says_what_is_allowed(http):
    assert (await http.delete("/systems")).headers["allow"] == "GET"


async def test_a_fault_of_the_service_tells_nothing_of_its_insides(http, app, monkeypatch):
    monkeypatch.setattr(app.state.lab.store, "twins", lambda limit: 1 / 0)
    response = await http.get("/twins")
    assert response.status_code == 500
    assert response.json()["type"] == "urn:pnnlab:problem:internal-error"
    assert "division" not in response.text


async def test_a_path_that_climbs_out_of_the_data_folder_finds_nothing(http):
    response = await http.get("/jobs/..%2F..%2Fsecret/checkpoint")
    assert response.status_code == 404


def test_the_committed_schema_is_the_service():
    committed = (ROOT / "server" / "openapi.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "run: python -m server.openapi > server/openapi.json"


async def test_a_full_queue_is_asked_again_after_whole_seconds_rounded_up(http, app, monkeypatch):
    def full(forward_pass):
        raise QueueFull("optics: full", 2.1)

    monkeypatch.setattr(app.state.lab.scheduler, "submit", full)
    body = {"x": [[0.5] * 50], "theta": [[0.0] * 50]}
    response = await http.post("/systems/optics/passes", json=body)
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["retry_after_s"], response.json()["detail"]) == (2.1, "optics: full")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/jobs", r'{"system": "\ud800"}', 404),
        ("/jobs", r'{"task": "\ud800"}', 422),
        ("/schedules", r'{"name": "a", "cron": "0 6 * * *", "config": {"task": "\ud800"}}', 422),
        ("/schedules", r'{"name": "a", "cron": "0 6 * * *", "time_zone": "\ud800"}', 422),
    ],
)
async def test_half_a_character_is_refused(http, path, body, status):
    """JSON can escape what no text can hold."""
    response = await http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert response.json()["status"] == status


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999"])
@pytest.mark.parametrize(
    "field",
    [
        '"penalty": {}',
        '"network": {{"first": {{"kind": "linear", "mean": {}}}}}',
    ],
)
async def test_a_number_without_an_end_is_refused(http, field, number):
    """It could not be kept: the job would end as unknown when it is read again."""
    for path, body in (
        ("/jobs", f"{{{field.format(number)}}}"),
        (
            "/schedules",
            f'{{"name": "a", "cron": "0 6 * * *", "config": {{{field.format(number)}}}}}',
        ),
    ):
        response = await http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, response.text
        assert "number" in response.json()["detail"]

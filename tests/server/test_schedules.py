"""Schedules over HTTP, through the client and on the command line, on the simulated bench."""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from lab.errors import ConfigError, Conflict, UnknownName
from lab.jobs import tables
from lab.jobs.kinds import KINDS
from lab.jobs.records import FitConfig
from lab.jobs.schedules.store import ScheduleStore
from lab.jobs.store import Store
from server.cli import app as commands
from server.config_files import read_settings

HOUR_S = 3600.0
LIMIT_S = 60.0
# a time that does not come while the tests run
FIT = {"name": "refit", "cron": "0 6 29 2 *", "time_zone": "Europe/Zurich", "kind": "fit"}
SMALL = {"rows": 20, "kind": "neural"}


@pytest.mark.anyio
async def test_a_schedule_shows_its_next_ticks_in_its_own_zone(http):
    response = await http.post(
        "/schedules", json={**FIT, "config": SMALL}, headers={"Pnnlab-Client": "ann"}
    )
    assert response.status_code == 201
    added = response.json()
    years = [datetime.fromisoformat(tick).year for tick in added["next_ticks"]]
    assert years == [years[0], years[0] + 4, years[0] + 8]
    assert all(tick.endswith("-02-29T06:00:00+01:00") for tick in added["next_ticks"])
    assert (added["client"], added["config"], added["jobs"]) == ("ann", SMALL, [])
    assert (await http.get("/schedules/refit")).json() == added
    assert (await http.get("/schedules")).json() == [added]


@pytest.mark.anyio
async def test_without_a_zone_it_is_the_machines(http, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    added = (await http.post("/schedules", json={"name": "a", "cron": "0 6 * * *"})).json()
    assert added["time_zone"] == "Asia/Kathmandu"
    assert added["next_ticks"][0].endswith("T06:00:00+05:45")


@pytest.mark.anyio
async def test_running_one_now_starts_an_ordinary_job(http, follow):
    await http.post("/schedules", json={**FIT, "config": SMALL}, headers={"Pnnlab-Client": "ann"})
    response = await http.post("/schedules/refit/run")
    assert response.status_code == 202
    job = await follow(response.json()["id"])
    assert (job["kind"], job["state"], job["client"]) == ("fit", "succeeded", "ann")
    assert job["config"]["rows"] == 20
    assert (await http.get("/schedules/refit")).json()["jobs"] == [job["id"]]


@pytest.mark.anyio
async def test_pausing_and_going_on(http):
    added = (await http.post("/schedules", json=FIT)).json()
    paused = (await http.post("/schedules/refit/pause")).json()
    assert (paused["paused"], paused["next_ticks"]) == (True, [])
    runs = (await http.post("/schedules/refit/continue")).json()
    assert (runs["paused"], runs["next_ticks"]) == (False, added["next_ticks"])
    assert runs["handled_s"] > added["handled_s"]


@pytest.mark.anyio
async def test_one_that_is_removed_is_gone(http):
    await http.post("/schedules", json=FIT)
    again = await http.post("/schedules", json=FIT)
    assert (again.status_code, again.json()["type"]) == (409, "urn:pnnlab:problem:conflict")
    assert (await http.delete("/schedules/refit")).status_code == 204
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/continue"),
        ("POST", "/run"),
    ):
        response = await http.request(method, f"/schedules/refit{path}")
        assert response.status_code == 404
        assert response.json()["detail"] == "no schedule 'refit'"


REFUSED = [
    ({"cron": "0 25 * * *"}, 422, "cron: '0 25 * * *' cannot be read (Bad hour)"),
    ({"cron": "0 6 * *"}, 422, "has 4 fields, not five"),
    ({"time_zone": "Europe/Zurch"}, 422, "did you mean Europe/Zurich"),
    ({"config": {"rows": 3}}, 422, "config: rows: "),
    ({"config": {"row": 300}}, 422, "config: row: "),
    ({"config": {"deadline_s": 9e9}}, 422, "deadline_s: one moment cannot be"),
    ({"config": {"system": "nowhere"}}, 404, "nowhere"),
    ({"kind": "dance"}, 422, "kind"),
    ({"name": "a/b"}, 422, "name"),
    ({"missed": "twice"}, 422, "missed"),
    ({"tags": ["two words"]}, 422, "tags"),
]


@pytest.mark.anyio
async def test_what_cannot_work_is_refused_at_once(http):
    for fields, status, reason in REFUSED:
        response = await http.post("/schedules", json={**FIT, **fields})
        assert response.status_code == status, fields
        assert reason in response.json()["detail"]
    assert (await http.get("/schedules")).json() == []


async def shown_when(http, done) -> dict[str, Any]:
    """Return the schedule once `done` says so of it, and let its newest job end."""
    async with asyncio.timeout(LIMIT_S):
        while not done(shown := (await http.get("/schedules/refit")).json()):
            await asyncio.sleep(0.01)
        await http.get(f"/jobs/{shown['jobs'][0]}/events")
    return shown


@pytest.mark.anyio
async def test_a_tick_that_came_while_no_service_was_there_runs_once_late(tmp_path, open_http):
    tick = datetime.fromtimestamp(time.time() - HOUR_S / 2, UTC).replace(second=0, microsecond=0)
    async with open_http() as http:
        config = {**FIT, "cron": f"{tick.minute} * * * *", "time_zone": "UTC", "tags": ["hourly"]}
        body = {**config, "config": SMALL}
        await http.post("/schedules", json=body, headers={"Pnnlab-Client": "ann"})
    with Store(tmp_path) as store:
        schedules = ScheduleStore(store.database)
        schedules.skip(schedules.get("refit"), time.time() - HOUR_S * 0.9)  # so long an outage
    async with open_http() as http:
        shown = await shown_when(http, lambda schedule: schedule["jobs"])
        (job,) = (await http.get("/jobs")).json()
    assert [job["id"]] == shown["jobs"]
    assert (job["kind"], job["client"], job["tags"]) == ("fit", "ann", ["hourly"])
    assert job["origin"] == f"schedule refit, tick {tick.isoformat()}"
    assert (job["state"], shown["handled_s"]) == ("succeeded", tick.timestamp())
    with Store(tmp_path) as store, store.engine.begin() as database:
        # as a service leaves it that died when it had submitted the job, and not yet noted it
        claim = {"launching_s": tick.timestamp(), "claimed_s": tick.timestamp()}
        database.execute(sa.update(tables.schedules).values(**claim))
        database.execute(sa.delete(tables.launches))
    async with open_http() as http:
        shown = await shown_when(http, lambda schedule: schedule["launching_s"] is None)
        assert (await http.get("/jobs")).json() == [job]
    assert (shown["jobs"], shown["error"]) == ([job["id"]], "")


@pytest.mark.anyio
async def test_the_same_key_starts_one_job(http, follow):
    await http.post("/schedules", json={**FIT, "config": SMALL})
    headers = {"Idempotency-Key": "now"}
    first, second = [
        (await http.post("/schedules/refit/run", headers=headers)).json() for _ in range(2)
    ]
    assert first["id"] == second["id"]
    await follow(first["id"])
    assert (await http.get("/schedules/refit")).json()["jobs"] == [first["id"]]


def test_the_client(client):
    added = client.add_schedule("refit", "0 6 29 2 *", "fit", FitConfig(rows=20, kind="neural"))
    assert (added["config"], added["client"]) == (SMALL, "tests")
    sundays = client.add_schedule(
        "sundays", "0 6 29 2 sun", config={"task": "vowels"}, missed="skip", tags=["weekly"]
    )
    assert (sundays["kind"], sundays["missed"], sundays["tags"]) == ("train", "skip", ["weekly"])
    assert [s["name"] for s in client.schedules()] == ["refit", "sundays"]
    assert client.pause_schedule("refit")["paused"] is True
    assert client.continue_schedule("refit")["paused"] is False
    job = client.run_schedule("refit")
    assert list(client.watch(job["id"]))[-1].data["state"] == "succeeded"
    assert client.schedule("refit")["jobs"] == [job["id"]]
    with pytest.raises(Conflict):
        client.add_schedule("refit", "0 6 * * *")
    with pytest.raises(ConfigError, match="kind"):
        client.add_schedule("dance", "0 6 * * *", "dance")
    client.remove_schedule("refit")
    with pytest.raises(UnknownName, match="no schedule 'refit'"):
        client.schedule("refit")


def pnnlab(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(commands, ["schedules", *words])
    assert result.exit_code == code, result.output
    return result.output


def test_the_commands(client, monkeypatch, tmp_path):
    monkeypatch.setenv("PNNLAB_URL", client.url)
    (tmp_path / "fit.toml").write_text('rows = 300\nkind = "neural"\n')
    when = ("--cron", "0 6 29 2 *", "--time-zone", "Europe/Zurich")
    config = ("--config", str(tmp_path / "fit.toml"), "--set", "rows=20", "--set", "task=vowels")
    added = pnnlab("add", "refit", "fit", *when, *config)
    assert added.startswith("refit  fit  '0 6 29 2 *' Europe/Zurich  next 20")
    assert client.schedule("refit")["config"] == {**SMALL, "task": "vowels"}
    pnnlab("add", "sundays", "train", *when, "--set", "twin.kind=neural", "--set", "twin.rows=20")
    assert client.schedule("sundays")["config"] == {"twin": SMALL}
    assert [line.split()[0] for line in pnnlab("list").splitlines()] == ["refit", "sundays"]
    job = pnnlab("run", "refit").split()[1]
    assert f"jobs     {job}" in pnnlab("show", "refit")
    assert json.loads(pnnlab("show", "refit", "--json"))["jobs"] == [job]
    assert pnnlab("pause", "refit").endswith("Europe/Zurich  paused\n")
    assert "  next " in pnnlab("continue", "refit")
    assert pnnlab("remove", "refit") == "removed refit\n"
    assert pnnlab("remove", "refit", code=1) == "pnnlab: no schedule 'refit'\n"
    assert "not a setting" in pnnlab("add", "a", "fit", *when, "--set", "rows", code=1)
    assert "rows" in pnnlab("add", "a", "fit", *when, "--set", "rows=3", code=1)
    assert client.schedules()[0]["name"] == "sundays"
    digits = ("--set", "job=123456789012")  # an id as any other
    assert "no job '123456789012'" in pnnlab("add", "a", "evaluate", *when, *digits, code=1)


@pytest.mark.parametrize(
    ("kind", "setting", "field"),
    [
        ("evaluate", "job=123456789012", {"job": "123456789012"}),
        ("evaluate", "job=12345e678901", {"job": "12345e678901"}),
        ("calibrate", "name=true", {"name": "true"}),
        ("train", "twin.id=123456789012", {"twin": {"id": "123456789012"}}),
        ("train", "twin.id=null", {"twin": {"id": None}}),
        ("train", "micro_batches=3", {"micro_batches": 3}),
        ("train", "micro_batches=auto", {"micro_batches": "auto"}),
        ("compare", 'methods=["pat"]', {"methods": ["pat"]}),
        ("fit", "rows=20.5", {"rows": 20.5}),  # wrong, which the service says
        ("fit", "steps=3", {"steps": 3}),
    ],
)
def test_a_setting_is_text_where_the_config_has_text(kind, setting, field):
    assert read_settings([setting], KINDS[kind]) == field

"""How clients share a system over HTTP: order, limits, deadlines, the queue, reservations."""

import asyncio
import io
import time

import numpy as np
import pytest

pytestmark = pytest.mark.anyio

PASSES, QUEUE, RESERVATION = (f"/systems/optics/{n}" for n in ("passes", "queue", "reservation"))
NPZ = "application/x-npz"
PROBLEM = "urn:pnnlab:problem:"


def rows(count: int = 1, **options) -> dict:
    return {"x": np.full((count, 50), 0.5).tolist(), "theta": [[0.0] * 50] * count, **options}


def archive(count: int = 1) -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.full((count, 50), 0.5), theta=np.zeros((count, 50)))
    return file.getvalue()


async def queued(http, count: int) -> list[dict]:
    """Return what is in the queue, the running pass too, once it is so many passes."""
    while len(passes := (await http.get(QUEUE)).json()["passes"]) != count:
        pass
    return passes


def sent(http, **options) -> asyncio.Task:
    return asyncio.create_task(http.post(PASSES, json=rows(**options)))


# --- order and options ----------------------------------------------------------------------


async def test_higher_priority_goes_first(http, gate):
    calls = [sent(http)]
    await gate.reached()
    for count, priority in enumerate((-100, 0, 100), start=2):
        calls.append(sent(http, priority=priority))
        await queued(http, count)
    gate.go_on.set()
    answers = [(await call).json()["shots"] for call in calls]
    assert answers == [[0], [3], [2], [1]]


async def test_the_queue_shows_who_waits_for_what(http, gate):
    gate.go_on.set()
    assert (await http.post(PASSES, json=rows())).status_code == 200  # so the row time is known
    gate.close()
    deadline_s = time.time() + 600
    running = sent(http, client="ann")
    await gate.reached()
    waiting = asyncio.create_task(
        http.post(
            PASSES,
            params={"priority": 3, "deadline_s": deadline_s},
            content=archive(2),
            headers={"Content-Type": NPZ, "Pnnlab-Client": "bob@lab"},
        )
    )
    first, second = await queued(http, 2)
    queue = (await http.get(QUEUE)).json()
    assert {k: v for k, v in queue.items() if k not in ("passes", "row_time_s")} == {
        "system": "optics",
        "waiting": 1,
        "waiting_rows": 2,
    }
    bobs, anns = sorted((first, second), key=lambda p: p["running"])
    assert (anns["client"], anns["running"], anns["rows_done"]) == ("ann", True, 0)
    assert (bobs["client"], bobs["running"], bobs["rows"]) == ("bob@lab", False, 2)
    assert (bobs["priority"], bobs["deadline_s"]) == (3, deadline_s)
    # the estimate takes the highest priority first, though a row of another is in flight
    assert time.time() - 600 < bobs["start_s"] < bobs["finish_s"] <= anns["finish_s"]
    assert queue["row_time_s"] > 0
    [listed] = (await http.get(QUEUE, params={"limit": 1})).json()["passes"]
    assert listed["pass_id"] == first["pass_id"]
    gate.go_on.set()
    assert [(await call).status_code for call in (running, waiting)] == [200, 200]
    assert await queued(http, 0) == []


async def test_before_the_first_row_nothing_is_estimated(http, gate):
    call = sent(http)
    await gate.reached()
    [only] = await queued(http, 1)
    assert (only["start_s"], only["finish_s"], only["client"]) == (None, None, "http")
    gate.go_on.set()
    await call


async def test_the_body_names_the_client_before_the_header_does(http, gate):
    headers = {"Pnnlab-Client": "header"}
    call = asyncio.create_task(http.post(PASSES, json=rows(client="body"), headers=headers))
    await gate.reached()
    assert [p["client"] for p in await queued(http, 1)] == ["body"]
    gate.go_on.set()
    await call


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", 101),
        ("client", "a" * 201),
        ("deadline_s", 0),
        ("timeout_s", -1),
        ("repeatable", "perhaps"),
        ("on_fault", "pray"),
        ("reservation", "mine"),
    ],
)
async def test_an_option_that_cannot_be_used_is_named(http, name, value):
    as_json = await http.post(PASSES, json=rows(**{name: value}))
    assert as_json.status_code == 422
    assert [e["pointer"] for e in as_json.json()["errors"]] == [f"#/{name}"]
    headers = {"Content-Type": NPZ}
    as_npz = await http.post(PASSES, params={name: value}, content=archive(), headers=headers)
    assert as_npz.status_code == 422
    assert [e["parameter"] for e in as_npz.json()["errors"]] == [name]


async def test_an_option_beside_a_json_body_is_refused_and_not_ignored(http):
    response = await http.post(PASSES, params={"priority": 5}, json=rows())
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"detail": "belongs into the JSON body", "parameter": "priority"}
    ]


# --- limits and deadlines -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_waiting_per_client": 1}, "1 passes of http wait, the most that a client may have"),
        ({"max_waiting": 1}, "1 passes wait, the most that may"),
        ({"max_waiting_rows": 1}, "1 rows wait, and 1 more are over 1"),
    ],
)
async def test_a_full_queue_says_when_to_come_back(open_http, gate, limits, says):
    async with open_http(**limits) as http:
        running = sent(http)
        await gate.reached()
        waiting = sent(http)
        await queued(http, 2)
        full = await http.post(PASSES, json=rows())
        assert full.status_code == 429
        assert full.headers["retry-after"] == "1"
        problem = full.json()
        assert (problem["type"], problem["detail"]) == (PROBLEM + "queue-full", f"optics: {says}")
        assert problem["retry_after_s"] == 1.0
        gate.go_on.set()
        assert [(await call).status_code for call in (running, waiting)] == [200, 200]
        assert (await http.post(PASSES, json=rows())).status_code == 200


async def test_a_deadline_that_has_passed_gets_504(http):
    response = await http.post(PASSES, json=rows(deadline_s=1.0))
    assert (response.status_code, response.json()["type"]) == (504, PROBLEM + "deadline-missed")
    assert "its deadline has passed" in response.json()["detail"]


async def test_a_pass_that_waits_past_its_deadline_gets_504(http, gate):
    running = sent(http)
    await gate.reached()
    late = await http.post(PASSES, json=rows(deadline_s=time.time() + 0.05))
    assert (late.status_code, late.json()["type"]) == (504, PROBLEM + "deadline-missed")
    assert "ended after 0 of 1 rows" in late.json()["detail"]
    gate.go_on.set()
    assert (await running).status_code == 200


async def test_a_pass_that_takes_too_long_gets_504(app, http, gate):
    call = sent(http, count=2, timeout_s=0.01)
    await gate.reached()
    [portion] = app.state.lab.scheduler._queues["optics"].hardware.running.portions
    while not portion.ticket.stopped():
        await asyncio.sleep(0)
    gate.go_on.set()
    response = await call
    assert (response.status_code, response.json()["type"]) == (504, PROBLEM + "pass-timeout")
    assert "ended after 1 of 2 rows" in response.json()["detail"]


# --- reservations and calibrations ----------------------------------------------------------


async def reserved(http, **fields) -> dict:
    response = await http.post(RESERVATION, json={"ttl_s": 60, **fields})
    assert response.status_code == 201, response.text
    return response.json()


async def test_others_wait_while_a_system_is_reserved(http):
    held = await reserved(http, owner="ann")
    assert (held["system"], held["owner"], held["ttl_s"]) == ("optics", "ann", 60)
    assert held["expires_s"] == pytest.approx(held["since_s"] + 60)
    other = sent(http)
    await queued(http, 1)
    mine = await http.post(PASSES, json=rows(reservation=held["number"]))
    assert mine.status_code == 200
    status = (await http.get("/systems/optics")).json()["status"]
    assert (status["waiting"], status["reservation"]) == (1, held)
    released = await http.delete(f"{RESERVATION}/{held['number']}")
    assert (released.status_code, released.content) == (204, b"")
    assert (await other).json()["shots"] == [1]


async def test_a_heartbeat_lets_a_reservation_live_on(http):
    held = await reserved(http)
    kept = await http.post(f"{RESERVATION}/{held['number']}/heartbeat")
    assert kept.status_code == 200
    assert kept.json()["expires_s"] > held["expires_s"]
    assert {**kept.json(), "expires_s": 0} == {**held, "expires_s": 0}


async def test_the_owner_is_who_asks(http):
    headers = {"Pnnlab-Client": "ann@lab"}
    response = await http.post(RESERVATION, json={"ttl_s": 60}, headers=headers)
    assert response.json()["owner"] == "ann@lab"


async def test_a_reserved_system_says_whose_it_is(http):
    await reserved(http, owner="ann")
    response = await http.post(RESERVATION, json={"ttl_s": 60, "owner": "bob"})
    assert (response.status_code, response.json()["type"]) == (409, PROBLEM + "conflict")
    assert response.json()["detail"] == "optics is reserved by ann for 60 s more"


@pytest.mark.parametrize("ttl_s", [0.9, 3601, "long", None])
async def test_a_time_to_live_out_of_range_is_refused_with_its_field(http, ttl_s):
    response = await http.post(RESERVATION, json={"ttl_s": ttl_s})
    assert response.status_code == 422
    assert [e["pointer"] for e in response.json()["errors"]] == ["#/ttl_s"]
    await reserved(http)


async def test_what_names_a_reservation_that_has_ended_is_refused(http):
    number = (await reserved(http))["number"]
    await http.delete(f"{RESERVATION}/{number}")
    late = [
        await http.post(PASSES, json=rows(reservation=number)),
        await http.post(f"{RESERVATION}/{number}/heartbeat"),
        await http.delete(f"{RESERVATION}/{number}"),
        await http.put("/systems/optics/calibration", json={"name": "a", "reservation": number}),
    ]
    for response in late:
        assert response.status_code == 409
        assert response.json()["type"] == PROBLEM + "reservation-lost"
        assert response.json()["detail"] == f"reservation {number} of optics has ended"


async def test_a_reservation_that_never_was_gets_404(http):
    number = (await reserved(http))["number"] + 1
    for response in (
        await http.post(PASSES, json=rows(reservation=number)),
        await http.post(f"{RESERVATION}/{number}/heartbeat"),
        await http.delete(f"{RESERVATION}/{number}"),
    ):
        assert response.status_code == 404
        assert response.json()["detail"] == f"optics has no reservation {number}"


async def test_a_reservation_ends_with_its_passes(http, gate):
    number = (await reserved(http))["number"]
    running = sent(http, count=2, reservation=number)
    await gate.reached()
    waiting = sent(http, reservation=number)
    await queued(http, 2)
    assert (await http.delete(f"{RESERVATION}/{number}")).status_code == 204
    gate.go_on.set()
    for call, done in ((waiting, "0 of 1"), (running, "1 of 2")):
        problem = (await call).json()
        assert (problem["status"], problem["type"]) == (409, PROBLEM + "reservation-lost")
        assert f"ended after {done} rows" in problem["detail"]


async def test_measurements_carry_the_calibration_in_force(http):
    changed = await http.put("/systems/optics/calibration", json={"name": "2026-11-22"})
    assert (changed.status_code, changed.json()["calibration"]) == (200, "2026-11-22")
    assert (await http.post(PASSES, json=rows())).json()["calibration"] == "2026-11-22"


async def test_a_reserved_systems_calibration_is_its_owners(http):
    number = (await reserved(http, owner="ann"))["number"]
    refused = await http.put("/systems/optics/calibration", json={"name": "b"})
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "conflict")
    assert refused.json()["detail"] == "optics is reserved by ann"
    body = {"name": "a", "reservation": number}
    assert (await http.put("/systems/optics/calibration", json=body)).status_code == 200


async def test_an_unknown_system_gets_404(http):
    for response in (
        await http.get("/systems/nope/queue"),
        await http.put("/systems/nope/calibration", json={"name": "a"}),
        await http.post("/systems/nope/reservation", json={"ttl_s": 60}),
        await http.post("/systems/nope/reservation/1/heartbeat"),
        await http.delete("/systems/nope/reservation/1"),
    ):
        assert response.status_code == 404
        assert response.json()["detail"] == "no system 'nope' (there are: optics)"

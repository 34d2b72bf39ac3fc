"""POST /stop, as jobs, clients and whoever asks see it."""

import asyncio

from server.routes.access import UNNAMED


async def test_jobs_end_as_cancelled_with_the_reason(http, job_body, follow, gate) -> None:
    job = (await http.post("/jobs", json=job_body)).json()["id"]
    await gate.reached()
    asking = http.post("/stop", headers={"Pnnlab-Client": "ann"})
    stopping = asyncio.create_task(asking)
    while (await http.get("/systems/optics")).json()["status"]["state"] != "stopped":
        assert not stopping.done()
    gate.go_on.set()
    assert (await stopping).json()["confirmed"]
    ended = await follow(job)
    assert ended["state"] == "cancelled"
    assert ended["error"] == "stopped by ann"


async def test_a_job_that_computes_or_waits_for_a_worker_does_not_drive_after_a_recovery(
    http, job_body, follow
) -> None:
    endless = {**job_body, "method": "in-silico", "epochs": 10_000}
    jobs = [(await http.post("/jobs", json=endless)).json()["id"] for _ in range(3)]
    async with asyncio.timeout(60.0):
        while not (await http.get(f"/jobs/{jobs[0]}/metrics")).json():
            await asyncio.sleep(0.01)
    assert (await http.get(f"/jobs/{jobs[2]}")).json()["state"] == "pending"
    await http.post("/stop")
    assert (await http.post("/systems/optics/recover")).json()["state"] == "ok"
    for job in jobs:
        ended = await follow(job)
        assert (ended["state"], ended["error"]) == ("cancelled", f"stopped by {UNNAMED}")


async def test_what_comes_later_is_refused_until_it_is_recovered(http) -> None:
    answer = await http.post("/stop")
    assert answer.status_code == 200
    assert answer.json() == {
        "confirmed": True,
        "systems": [
            {
                "name": "optics",
                "reason": f"stopped by {UNNAMED}",
                "instruments": {"shaper": "safe", "spectrometer": "safe"},
            }
        ],
    }
    rows = {"x": [[0.5] * 50], "theta": [[0.5] * 50]}
    refused = await http.post("/systems/optics/passes", json=rows)
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:pnnlab:problem:system-stopped"
    assert (await http.post("/systems/optics/recover")).json()["state"] == "ok"
    assert (await http.post("/systems/optics/passes", json=rows)).status_code == 200

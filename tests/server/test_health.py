"""Whether the service is ready, as far as its jobs go; see test_systems and test_away too."""

import pytest

import lab.jobs.housekeeping

pytestmark = pytest.mark.anyio


async def test_it_is_not_ready_while_the_engine_does_not_answer(app, http, monkeypatch):
    jobs = app.state.lab.jobs
    with monkeypatch.context() as patch:
        patch.setattr(lab.jobs.housekeeping, "sweep", broken)
        jobs._housekeeper._swept_s -= 60  # as if it had not answered for so long
        await jobs._housekeeper.sweep()
        answer = await http.get("http://lab/readyz")
    assert answer.status_code == 503
    [reason] = answer.json()["reasons"]
    assert reason.startswith("jobs: the engine or its database has not answered for 6")
    await jobs._housekeeper.sweep()
    assert (await http.get("http://lab/readyz")).status_code == 200


def broken(*_: object) -> None:
    raise RuntimeError("the engine's tables are gone")


async def test_it_is_not_ready_while_it_stops(app, http):
    await app.state.lab.stop()
    answer = await http.get("http://lab/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["system optics: closed", "jobs: the service is stopping"]

"""The end of the service: instruments are made safe first, then it waits for what computes."""

import asyncio
import threading

import numpy as np
import pytest

from lab.jobs.runner import JobRunner
from lab.measurement import ForwardPass

pytestmark = pytest.mark.anyio

LIMIT_S = 60.0


async def test_the_safe_state_does_not_wait_for_a_job_that_computes(
    app, http, job_body, monkeypatch
):
    computing, may_end = threading.Event(), threading.Event()

    def compute(*_: object) -> None:
        computing.set()
        assert may_end.wait(LIMIT_S)
        raise RuntimeError("what a stopped job ends with does not matter")

    monkeypatch.setattr(JobRunner, "run", compute)
    job = (await http.post("/jobs", json=job_body)).json()["id"]
    assert await asyncio.to_thread(computing.wait, LIMIT_S)
    lab = app.state.lab
    await lab.scheduler.submit(ForwardPass("optics", np.full((1, 50), 0.5), np.zeros((1, 50))))
    shaper = lab.bench.rig("optics").instruments["shaper"]
    assert not shaper.safe
    stopping = asyncio.create_task(lab.stop())
    try:
        async with asyncio.timeout(LIMIT_S):
            while not shaper.safe:
                await asyncio.sleep(0.001)
        assert not stopping.done()
    finally:
        may_end.set()
        await stopping
    assert (await lab.jobs.get(job)).state == "pending"  # it goes on in the next service

"""Comparisons as jobs: their parts are jobs of their own, which they wait for and sum up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ConfigError
from lab.jobs import tables
from lab.jobs.configs import CompareConfig
from lab.jobs.records import JobRecord, Order
from lab.jobs.service import JobService
from lab.jobs.store import Store
from opened_jobs import LIMIT_S, ended, metric, open_jobs, reached

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

FIT = "twin on 20 rows"
RUNS = [f"{run}, {FIT}" for run in ("pat seed 0", "in-silico seed 0")]


def comparison(**fields: Any) -> CompareConfig:
    small = {"methods": ["pat", "in-silico"], "seeds": 1, "epochs": 2, "layers": 1}
    return CompareConfig.model_validate(
        {**small, "twin_kind": "neural", "twin_rows": [20], **fields}
    )


async def parts(jobs: JobService, job_id: str) -> dict[str, JobRecord]:
    return {part.id: part for part in await jobs.newest(parent=job_id)}


def without_times(found: Any) -> Any:
    """Return a result without times and random names."""
    if isinstance(found, dict):
        return {k: without_times(v) for k, v in found.items() if "second" not in k and k != "parts"}
    return found


async def whole(folder: Path) -> dict[str, Any]:
    """Return the result of a comparison that nothing disturbs."""
    async with open_jobs(folder, workers=2) as jobs:
        job = await jobs.submit(comparison())
        assert (await ended(jobs, job.id)).error == ""
        return await jobs.result(job.id)


async def test_its_parts_are_jobs_of_their_own_and_it_sums_them_up(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        config = comparison(methods=["pat"], seeds=2, controls=["identity"], priority=3)
        job = await jobs.submit(config, Order("ann", tags=("week-3",)))
        assert (await ended(jobs, job.id)).error == ""
        result, found = await jobs.result(job.id), await parts(jobs, job.id)
        runs = [f"{run} seed {n}, {FIT}" for run, n in (("pat", 0), ("pat", 1), ("identity", 0))]
        assert list(result["parts"]) == [FIT, *runs]
        assert set(result["parts"].values()) == set(found)
        for part in found.values():
            assert (part.state, part.client, part.tags) == ("succeeded", "ann", ("week-3",))
            assert (part.origin, part.config["priority"]) == (f"part of {job.id}", 3)
        pat = [await jobs.result(result["parts"][run]) for run in runs[:2]]
        assert result["methods"]["pat"]["accuracy"] == [r["test_accuracy"] for r in pat]
        assert result["controls"]["identity"]["rows"] == 0
        assert (result["gap"], result["twin_rows"]) == (1.0, 20)
        fit = await jobs.result(result["parts"][FIT])
        assert result["twin"] == fit["report"]
        assert {r["twin"] for r in pat} == {fit["twin"]}
        metrics = [m.metric for m in await jobs.metrics(job.id)]
        assert [(m["done"], m["of"]) for m in metrics] == [(n, 4) for n in range(1, 5)]
        assert {m["part"]: m["job"] for m in metrics} == result["parts"]


async def test_comparisons_that_wait_take_no_worker(tmp_path):
    """More comparisons than workers: were they workers themselves, all would wait for ever."""
    async with open_jobs(tmp_path) as jobs:
        ids = [(await jobs.submit(comparison(methods=["pat"]))).id for _ in range(3)]
        assert {(await ended(jobs, job_id)).state for job_id in ids} == {"succeeded"}


async def test_several_twins_give_several_tables(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        job = await jobs.submit(comparison(methods=["pat"], twin_rows=[20, 25]))
        assert (await ended(jobs, job.id)).error == ""
        result = await jobs.result(job.id)
        assert [run["twin_rows"] for run in result["runs"]] == [20, 25]


async def test_a_network_that_is_partly_set_leaves_the_rest_to_the_recipe(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        job = await jobs.submit(comparison(layers=None, network={"layers": 2}))
        assert job.config["network"] == {"layers": 2}
        await jobs.cancel(job.id)


async def test_after_a_crash_each_part_is_done_once(tmp_path, database_url):
    expected = await whole(tmp_path / "whole")
    async with open_jobs(tmp_path, url=database_url, workers=2) as jobs:
        job = await jobs.submit(comparison())
        await metric(jobs, job.id)
    for _ in range(2):
        with Store(tmp_path, database_url) as store:  # as a process leaves it that was killed
            died = tables.jobs.update().where(tables.jobs.c.id == job.id).values(state="running")
            with store.engine.begin() as connection:
                connection.execute(died)
        async with open_jobs(tmp_path, url=database_url, workers=2) as jobs:
            await reached(jobs, job.id, "running")
    async with open_jobs(tmp_path, url=database_url, workers=2) as jobs:
        assert (await ended(jobs, job.id)).error == ""
        result = await jobs.result(job.id)
        assert without_times(result) == without_times(expected)
        assert set(result["parts"].values()) == set(await parts(jobs, job.id))
        metrics = await jobs.metrics(job.id)
        assert [m.step for m in metrics] == [1, 2, 3]
        assert {m.metric["job"] for m in metrics} == set(result["parts"].values())


async def test_parts_are_cancelled_with_it(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        job = await jobs.submit(comparison(epochs=10_000))
        await metric(jobs, job.id)
        await jobs.cancel(job.id)
        assert (await ended(jobs, job.id)).state == "cancelled"
        for part in (await parts(jobs, job.id)).values():
            last = await ended(jobs, part.id)
            if last.config.get("method") is not None:
                assert (last.state, last.error) == (
                    "cancelled",
                    f"cancelled with comparison {job.id}",
                )


async def test_paused_with_its_parts_it_goes_on_where_they_were(tmp_path):
    expected = await whole(tmp_path / "whole")
    async with open_jobs(tmp_path, workers=2) as jobs:
        job = await jobs.submit(comparison())
        await metric(jobs, job.id)
        await jobs.pause(job.id)
        await reached(jobs, job.id, "paused")
        for part in (await parts(jobs, job.id)).values():
            if part.state != "succeeded":
                await reached(jobs, part.id, "paused")
    async with open_jobs(tmp_path, workers=2) as jobs:
        states = {part.state for part in (await parts(jobs, job.id)).values()}
        assert states <= {"succeeded", "paused"}
        await jobs.go_on(job.id, {"priority": 2})
        assert (await ended(jobs, job.id)).error == ""
        assert without_times(await jobs.result(job.id)) == without_times(expected)


async def test_continued_at_once_it_takes_parts_along_that_are_still_stopping(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        job = await jobs.submit(comparison())
        await metric(jobs, job.id)
        await jobs.pause(job.id)
        await reached(jobs, job.id, "paused")
        await jobs.go_on(job.id)
        assert (await ended(jobs, job.id)).error == ""


async def test_a_part_that_fails_stops_no_other_and_is_done_when_it_continues(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        job = await jobs.submit(comparison())
        async with asyncio.timeout(LIMIT_S):
            while len(found := await parts(jobs, job.id)) < 3:
                await asyncio.sleep(0)
        [last] = [p for p in found.values() if p.config.get("method") == "in-silico"]
        await jobs.cancel(last.id)
        record = await ended(jobs, job.id)
        assert record.state == "failed"
        assert record.error.startswith("PartsFailed: 1 of 3 parts did not succeed")
        assert last.id in record.error
        states = [part.state for part in (await parts(jobs, job.id)).values()]
        assert sorted(states) == ["cancelled", "succeeded", "succeeded"]
        await jobs.go_on(job.id)
        assert (await ended(jobs, job.id)).error == ""
        assert set((await jobs.result(job.id))["parts"].values()) == set(found)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"methods": ["phyll"]}, "phyll"),
        ({"twin_kind": "filter"}, "kind"),
        ({"task": "file:colours.csv"}, "upload"),
    ],
)
async def test_what_a_part_could_not_do_is_refused_before(tmp_path, fields, says):
    async with open_jobs(tmp_path, workers=2) as jobs:
        with pytest.raises(ConfigError, match=says):
            await jobs.submit(comparison(**fields))
        assert await jobs.newest() == []


async def test_only_what_its_parts_share_can_change(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        job = await jobs.submit(comparison(epochs=10_000))
        await jobs.cancel(job.id)
        await ended(jobs, job.id)
        with pytest.raises(ConfigError, match="epochs"):
            await jobs.go_on(job.id, {"epochs": 3})


async def test_a_dry_run_adds_up_its_parts(tmp_path):
    async with open_jobs(tmp_path, workers=2) as jobs:
        run = await jobs.dry_run(comparison(methods=["pat"]))
        many = await jobs.dry_run(comparison(methods=["pat"], seeds=3))
        assert many.rows["twin"] == run.rows["twin"] > 0
        assert many.rows["training"] == 3 * run.rows["training"] > 0
        assert many.rows_planned == sum(many.rows.values()) <= many.rows_at_most
        assert (many.kind, many.config["seeds"]) == ("compare", 3)
        assert await jobs.newest() == []

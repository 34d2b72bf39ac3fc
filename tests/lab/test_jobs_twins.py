"""Which twin a training has: one that is there already, a new one, one that is named."""

import functools

import pytest

import opened_jobs
import tiny_jobs
from lab.bench import Bench
from lab.errors import ConfigError
from lab.jobs.files import FolderFiles
from lab.jobs.records import FitConfig
from lab.jobs.state_files import load_state, state_bytes, twin_file
from lab.jobs.store import Store
from opened_jobs import BENCH, ended, open_jobs
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "tiny")]

training = functools.partial(opened_jobs.training, method="pat")


async def test_jobs_that_want_the_same_twin_fit_it_once(jobs, tmp_path):
    ids = [(await jobs.submit(training(seed=seed, method="in-silico"))).id for seed in range(3)]
    for job_id in ids:
        assert (await ended(jobs, job_id)).state == "succeeded"
    with Store(tmp_path) as store:
        [twin] = store.twins()
    assert {(await jobs.result(job_id))["twin"] for job_id in ids} == {twin.id}
    assert twin.report["task"] is not None


async def test_a_bench_that_only_waits_longer_reuses_a_twin(tmp_path):
    slow = {name: i.model_copy(update={"timeout_s": 1.5}) for name, i in BENCH.instruments.items()}
    twins = []
    for changed in (BENCH, BENCH.model_copy(update={"instruments": slow})):
        async with open_jobs(tmp_path, changed) as jobs:
            job = await jobs.submit(training(method="in-silico"))
            assert (await ended(jobs, job.id)).state == "succeeded"
            twins.append((await jobs.result(job.id))["twin"])
    assert twins[0] == twins[1]


async def test_another_bench_does_not_reuse_a_twin(tmp_path):
    twins = []
    for gap in (1.0, 0.5):
        rig = BENCH.rigs["optics"].model_copy(update={"gap": gap})
        changed = BENCH.model_copy(update={"rigs": {"optics": rig}})
        async with open_jobs(tmp_path, changed) as jobs:
            job = await jobs.submit(training(method="in-silico"))
            await ended(jobs, job.id)
            twins.append((await jobs.result(job.id))["twin"])
    assert twins[0] != twins[1]


async def test_a_named_twin_of_another_bench_is_refused(tmp_path):
    async with open_jobs(tmp_path) as jobs:
        fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
        await ended(jobs, fit.id)
        twin = (await jobs.result(fit.id))["twin"]
    rig = BENCH.rigs["optics"].model_copy(update={"gap": 0.5})
    async with open_jobs(tmp_path, BENCH.model_copy(update={"rigs": {"optics": rig}})) as jobs:
        with pytest.raises(ConfigError, match=rf"twin\.id: twin '{twin}' was fitted on another"):
            await jobs.submit(training(twin={"id": twin}))
        assert [job.id for job in await jobs.newest()] == [fit.id]


async def test_a_twin_says_what_its_task_error_belongs_to(jobs, monkeypatch):
    """A second task re-uses the twin, whose fit knows no task, but not the first one's error."""
    have_done(monkeypatch, tiny_jobs.tell_twin)
    reports, errors = [], []
    for task in ("digits", "vowels", "digits"):
        job = await jobs.submit(training(task=task, method="in-silico", twin={"rows": 20}))
        assert (await ended(jobs, job.id)).state == "succeeded"
        result = await jobs.result(job.id)
        reports.append(jobs._store.twin(result["twin"]).report)
        assert result["fitted"]["digest"] == reports[-1]["digest"]
        errors.append(result["fitted"]["task"])
    assert len({report["digest"] for report in reports}) == 1
    assert {(r["task_name"], r["task_split"]) for r in reports} == {("digits", "random")}
    assert errors[1] is None
    assert errors[0] == errors[2] is not None


async def test_a_fit_without_a_task_has_no_task_error(jobs):
    fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
    await ended(jobs, fit.id)
    report = (await jobs.result(fit.id))["report"]
    assert [report[key] for key in ("task", "task_name", "task_split")] == [None] * 3


async def test_a_fit_is_a_job_and_its_twin_can_be_named(jobs, tmp_path):
    fit = await jobs.submit(FitConfig(rows=20, kind="neural", seed=7, task="vowels"))
    assert (await ended(jobs, fit.id)).state == "succeeded"
    result = await jobs.result(fit.id)
    assert result["report"]["hardware_rows"] > 100
    assert result["report"]["task"]["normalised"] > 0
    job = await jobs.submit(training(method="in-silico", twin={"id": result["twin"]}))
    assert (await ended(jobs, job.id)).state == "succeeded"
    assert (await jobs.result(job.id))["twin"] == result["twin"]
    with Store(tmp_path) as store:
        record = store.twin(result["twin"])
        assert (record.kind, record.rows, record.seed, record.job) == ("neural", 20, 7, fit.id)
        digest = record.report["digest"]
    assert (await jobs.result(job.id))["twin_digest"] == digest


async def test_a_twin_whose_file_was_changed_is_not_used(jobs, tmp_path):
    fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
    await ended(jobs, fit.id)
    twin = (await jobs.result(fit.id))["twin"]
    files, name = FolderFiles(tmp_path), twin_file(twin)
    other = {key: value + 1 for key, value in load_state(files, name).items()}
    files.write(name, state_bytes(other))
    job = await jobs.submit(training(twin={"id": twin}))
    failed = await ended(jobs, job.id)
    assert failed.state == "failed"
    assert "is not the one that its fit wrote" in failed.error


async def test_a_fit_asked_for_again_is_made_again(jobs):
    twins = set()
    for _ in range(2):
        fit = await jobs.submit(FitConfig(rows=20, kind="neural"))
        await ended(jobs, fit.id)
        twins.add((await jobs.result(fit.id))["twin"])
    assert len(twins) == 2


@pytest.mark.parametrize(("config", "field"), [(FitConfig(), "kind"), (training(), r"twin\.kind")])
async def test_a_kind_of_twin_that_there_is_not_is_refused_by_its_field(
    jobs, monkeypatch, config, field
):
    def refuse(*args, **options) -> None:
        raise ValueError("no structured twin for 'mine'")

    monkeypatch.setattr(Bench, "new_twin", refuse)
    with pytest.raises(ConfigError, match=rf"^{field}: no structured twin"):
        await jobs.submit(config)


async def test_a_twin_of_another_system_is_refused(tmp_path):
    both = {"optics": BENCH.systems["optics"], "other": BENCH.systems["optics"]}
    async with open_jobs(tmp_path, BENCH.model_copy(update={"systems": both})) as jobs:
        fit = await jobs.submit(FitConfig(system="other", rows=20, kind="neural"))
        await ended(jobs, fit.id)
        twin = (await jobs.result(fit.id))["twin"]
        with pytest.raises(ConfigError, match="belongs to system 'other'"):
            await jobs.submit(training(twin={"id": twin}))

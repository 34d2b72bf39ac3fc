"""What a dry run says is what a run then measures; and it measures and keeps nothing itself."""

from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import lab.jobs.runner
import tiny_jobs
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.errors import ConfigError, UnknownName
from lab.jobs.configs import CalibrateConfig, EvaluateConfig
from lab.jobs.records import FitConfig
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.store import Store
from lab.scheduling.scheduler import HardwareScheduler
from tiny_jobs import have_done

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "vowels")]

ROOT = Path(__file__).parents[2]
FILES = {"optics": "bench.toml", "circuit": "bench-circuit.toml", "plate": "bench-plate.toml"}


@pytest.fixture
def vowels(monkeypatch):
    """Let `vowels` be 60 made-up samples of as many features and classes; fits are short."""
    monkeypatch.setattr(lab.jobs.runner, "load", tiny_jobs.sixty_samples)
    have_done(monkeypatch, tiny_jobs.sixty)


class Opened:
    def __init__(self, jobs: JobService, scheduler: HardwareScheduler, name: str) -> None:
        self.jobs, self.scheduler, self.name = jobs, scheduler, name

    def measured(self) -> int:
        return self.scheduler.status(self.name).next_shot

    async def result(self, config: Any) -> tuple[str, dict[str, Any], int]:
        """Return a job's id and result, and how many rows it measured."""
        before = self.measured()
        job = await self.jobs.submit(config)
        *_, last = [item async for item in self.jobs.watch(job.id)]
        assert last.state == "succeeded", last.error
        return job.id, await self.jobs.result(job.id), self.measured() - before


@pytest.fixture
def opened(tmp_path):
    """Return the context that opens jobs on the bench of a family."""

    @asynccontextmanager
    async def opened(name: str):
        bench_config = load_bench(ROOT / FILES[name])
        with Store(tmp_path) as store, open_bench(bench_config, start=False) as bench:
            async with HardwareScheduler(bench.systems) as scheduler:
                jobs = JobService(JobRunner(bench, scheduler, store), store, 2)
                await jobs.open()
                try:
                    yield Opened(jobs, scheduler, name)
                finally:
                    await jobs.close()

    return opened


def training(name: str, **fields: Any) -> TrainConfig:
    small = {"system": name, "task": "vowels", "epochs": 5, "batch": 8, "initial_rows": 9}
    small |= {"network": {"layers": 1, "parallel": 2}, "test_span_s": 0.0}
    twin = {"rows": 20, "kind": "neural"}
    return TrainConfig.model_validate({**small, "twin": twin, **fields})


@pytest.mark.parametrize("name", FILES)
async def test_a_training_measures_what_its_dry_run_said(opened, name):
    async with opened(name) as there:
        for fields in ({"method": "pat-refit", "checks": 1}, {"method": "spsa", "epochs": 1}):
            said = await there.jobs.dry_run(training(name, **fields))
            _, result, measured = await there.result(training(name, **fields))
            assert said.rows_planned <= measured <= said.rows_at_most
            if not result["drifts"]:
                assert measured == said.rows_planned
            ledger = {what: rows for what, rows in result["ledger"].items() if rows}
            own = {what: rows for what, rows in said.rows.items() if what != "twin"}
            assert own == {k: v for k, v in ledger.items() if k != "twin"} or result["drifts"]
            assert said.seconds == pytest.approx(said.rows_planned * said.row_time_s)
            assert TrainConfig.model_validate(said.config).system == name


async def test_a_twin_that_is_there_is_named_and_costs_nothing(opened):
    async with opened("optics") as there:
        config = training("optics", method="in-silico")
        first = await there.jobs.dry_run(config)
        assert first.twin is None
        assert (
            first.rows["twin"] == 20 + 100 + 2 * 41
        )  # the fit's, held out, and of the task's samples
        _, result, _ = await there.result(config)
        again = await there.jobs.dry_run(config)
        assert again.twin == result["twin"]
        assert "twin" not in again.rows
        _, _, measured = await there.result(config)
        assert measured == again.rows_planned == again.rows_at_most


@pytest.mark.parametrize(
    "fields",
    [
        {"control": "output_refit"},
        {"control": "identity"},
        {"test_span_s": 50.0},
        {"holdout": "validation", "sentinels": False},
        {"rows": 300, "audit": False},
    ],
)
async def test_other_trainings_measure_what_was_said(opened, fields):
    async with opened("optics") as there:
        config = training("optics", method="pat", **fields)
        said = await there.jobs.dry_run(config)
        _, result, measured = await there.result(config)
        assert result["drifts"] or measured == said.rows_planned
        assert said.rows.get("output_refit", 0) == result["ledger"].get("output_refit", 0)


@pytest.mark.parametrize("name", FILES)
async def test_other_kinds_measure_what_was_said(opened, name):
    async with opened(name) as there:
        trained, *_ = await there.result(training(name, method="pat", epochs=1))
        for config in (
            FitConfig(system=name, rows=20, kind="neural", seed=3),
            FitConfig(system=name, rows=20, kind="neural", task="vowels", seed=4),
            CalibrateConfig(system=name, rows=140),
            EvaluateConfig(job=trained, samples=7),
        ):
            said = await there.jobs.dry_run(config)
            _, _, measured = await there.result(config)
            assert measured == said.rows_planned == said.rows_at_most


async def test_nothing_is_measured_or_kept(opened):
    async with opened("optics") as there:
        await there.jobs.dry_run(training("optics"))
        assert there.measured() == 0
        assert await there.jobs.newest() == []


async def test_what_would_be_refused_is_refused(opened):
    async with opened("optics") as there:
        with pytest.raises(UnknownName, match="no system 'nope'"):
            await there.jobs.dry_run(training("nope"))
        with pytest.raises(ConfigError, match="1000 training samples"):
            await there.jobs.dry_run(training("optics", train_images=1000))


async def test_who_waits_ahead_is_told(opened):
    async with opened("optics") as there:
        alone = await there.jobs.dry_run(CalibrateConfig())
        assert alone.ahead is not None
        assert (alone.ahead.jobs, alone.ahead.rows, alone.ahead.unknown) == (0, 0, 0)
        long = CalibrateConfig(rows=100_000)
        job = await there.jobs.submit(long)
        async for item in there.jobs.watch(job.id):
            if getattr(item, "step", 0):
                break
        ahead = (await there.jobs.dry_run(CalibrateConfig())).ahead
        assert ahead.jobs == 1
        assert 0 < ahead.rows < 100_000
        await there.jobs.cancel(job.id)

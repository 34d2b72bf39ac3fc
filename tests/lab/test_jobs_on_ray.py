"""Jobs that compute on a Ray cluster, here one of this machine; and what is said without Ray."""

import asyncio
import importlib.util
import itertools
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

import lab.jobs.ray_nursery
import tiny_jobs
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.config import TrainConfig
from lab.errors import ConfigError, Stopped, TrainerDied
from lab.jobs.configs import CompareConfig
from lab.jobs.far_line import accepted
from lab.jobs.files import FolderFiles
from lab.jobs.kinds import JobConfig
from lab.jobs.nursery import Nursery
from lab.jobs.ray_nursery import RayNursery
from lab.jobs.records import JobRecord, MetricRecord
from lab.jobs.runner import JobRunner
from lab.jobs.service import JobService
from lab.jobs.state_files import checkpoint_file, load_state
from lab.jobs.store import Store
from lab.jobs.supervision import Patience
from lab.jobs.trainers import Trainers
from lab.ray_cluster import software
from lab.scheduling.scheduler import HardwareScheduler
from tiny_jobs import have_done

pytestmark = pytest.mark.anyio

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra ray: Ray is not installed"
)

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")
LIMIT_S = 120.0  # no wait in these tests lasts so long unless something hangs
SOON_S = 30.0  # until Ray has ended what it is to end


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    have_done(monkeypatch, tiny_jobs.tiny)


@pytest.fixture(scope="module")
def on_ray() -> Iterator[RayNursery]:
    with closing(RayNursery("local")) as nursery:
        nursery.start()
        yield nursery


@asynccontextmanager
async def open_jobs(
    folder: Path, nursery: Trainers | None, patience: Patience | None = None
) -> AsyncIterator[JobService]:
    folder.mkdir(exist_ok=True)
    with Store(folder) as store, open_bench(BENCH, start=False) as bench:
        async with HardwareScheduler(bench.systems) as scheduler:
            patience = patience or Patience()
            runner = JobRunner(bench, scheduler, store, nursery=nursery, patience=patience)
            jobs = JobService(runner, store, 2)
            await jobs.open()
            try:
                yield jobs
            finally:
                await jobs.close()


def training(**fields: Any) -> TrainConfig:
    small = {"task": "vowels", "epochs": 8, "network": {"layers": 1}, "checkpoint_s": 0}
    return TrainConfig.model_validate({**small, "twin": {"rows": 20}, **fields})


async def ended(jobs: JobService, job_id: str) -> JobRecord:
    async with asyncio.timeout(LIMIT_S):
        seen = [item async for item in jobs.watch(job_id)]
    last = seen[-1]
    assert isinstance(last, JobRecord)
    return last


async def metric(jobs: JobService, job_id: str, after: int = 0) -> dict[str, Any]:
    """Wait for the first metric of a job after so many."""
    async with asyncio.timeout(LIMIT_S):
        async for item in jobs.watch(job_id, since=after):
            if isinstance(item, MetricRecord):
                return item.metric
    raise AssertionError(f"the job ended before: {item}")


async def error_of(jobs: JobService, config: JobConfig) -> str:
    job = await ended(jobs, (await jobs.submit(config)).id)
    assert job.state == "failed"
    return job.error


def lasting(found: Any) -> Any:
    """Return what is found without times and random names."""
    if isinstance(found, dict):
        random = ("parts", "twin", "job")
        return {
            k: lasting(v)
            for k, v in found.items()
            if "second" not in k and not (k in random and isinstance(v, str)) and k != "parts"
        }
    return [lasting(v) for v in found] if isinstance(found, list) else found


async def trained(folder: Path, nursery: Trainers | None, config: TrainConfig) -> dict[str, Any]:
    """Return all that a training leaves, but for times and random names."""
    async with open_jobs(folder, nursery) as jobs:
        job = await jobs.submit(config)
        assert (await ended(jobs, job.id)).error == ""
        kept = load_state(FolderFiles(folder), checkpoint_file(job.id))
        return {
            "result": lasting(await jobs.result(job.id)),
            "metrics": [(m.step, lasting(m.metric)) for m in await jobs.metrics(job.id)],
            **{
                name: {n: v.tolist() for n, v in kept[name].items()} for name in ("network", "twin")
            },
        }


async def compared(folder: Path, nursery: Trainers | None) -> dict[str, Any]:
    small = {"methods": ["pat-refit", "in-silico"], "seeds": 2, "epochs": 2, "layers": 1}
    config = CompareConfig.model_validate({**small, "twin_kind": "neural", "twin_rows": [20]})
    async with open_jobs(folder, nursery) as jobs:
        job = await jobs.submit(config)
        assert (await ended(jobs, job.id)).error == ""
        return lasting(await jobs.result(job.id))


def has_ended(pid_fd: int) -> bool:
    try:
        return select.select([pid_fd], [], [], SOON_S)[0] == [pid_fd]
    finally:
        os.close(pid_fd)


@needs_ray
async def test_a_comparison_finds_the_same_bits_as_without_ray(
    on_ray: RayNursery, nursery: Nursery | None, tmp_path: Path
) -> None:
    expected = await compared(tmp_path / "here", nursery)
    assert set(expected["methods"]) == {"pat-refit", "in-silico"}
    assert await compared(tmp_path / "there", on_ray) == expected


@needs_ray
async def test_a_training_whose_process_is_killed_ends_with_the_same_bits(
    on_ray: RayNursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = await trained(tmp_path / "thread", None, training())
    have_done(monkeypatch, tiny_jobs.tiny_killed_once)
    assert await trained(tmp_path / "ray", on_ray, training()) == expected
    assert (tmp_path / "ray" / "marks" / "killed").exists()
    assert "goes on in another process: its own died (WorkerCrashedError" in caplog.text


@needs_ray
@pytest.mark.parametrize("how", ["at once", "at the service's end"])
async def test_a_job_that_never_looks_up_ends_with_its_process(
    on_ray: RayNursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    have_done(monkeypatch, tiny_jobs.leave_a_sign)
    async with open_jobs(tmp_path, on_ray, Patience(goodbye_s=0)) as jobs:
        job = await jobs.submit(training())
        process = os.pidfd_open((await metric(jobs, job.id))["done"])
        if how == "at once":
            await jobs.cancel(job.id, at_once=True)
            assert (await ended(jobs, job.id)).state == "cancelled"
    assert has_ended(process)
    with Store(tmp_path) as store:
        assert store.job(job.id).state == ("cancelled" if how == "at once" else "pending")


@needs_ray
async def test_a_cancelled_training_ends_as_without_ray(on_ray: RayNursery, tmp_path: Path) -> None:
    async with open_jobs(tmp_path, on_ray) as jobs:
        job = await jobs.submit(training(epochs=10_000))
        await metric(jobs, job.id, 6)
        await jobs.cancel(job.id)
        assert (await ended(jobs, job.id)).state == "cancelled"


@needs_ray
async def test_each_job_has_a_fresh_process_with_one_thread_of_torchs(
    on_ray: RayNursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    have_done(monkeypatch, tiny_jobs.tell_state)
    async with open_jobs(tmp_path, on_ray) as jobs:
        found = [await error_of(jobs, training()) for _ in range(3)]
    told = [error.removeprefix("RuntimeError: ").split(", ") for error in found]
    assert [rest for _, *rest in told] == [["1 threads of torch", "1 handlers"]] * 3
    assert len({pid for pid, *_ in told}) == 3
    assert "in tell_state" in caplog.text


@needs_ray
async def test_a_node_with_other_versions_is_refused(
    on_ray: RayNursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**software(), "torch": "1.0"}
    monkeypatch.setattr(lab.jobs.ray_nursery, "software", lambda: other)
    async with open_jobs(tmp_path, on_ray) as jobs:
        error = await error_of(jobs, training())
    assert error.startswith("ConfigError: ray: other software on ")
    assert error.endswith(f": torch {software()['torch']}, not 1.0")


@needs_ray
def test_who_waits_for_a_cpu_can_be_stopped_and_gets_the_next_one(
    on_ray: RayNursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lab.jobs.ray_nursery, "_SAY_AFTER_S", 0.0)
    busy = [on_ray.trainer() for _ in range(os.cpu_count() or 1)]
    asked = itertools.count()
    try:
        with pytest.raises(Stopped, match="before its process had started"):
            on_ray.trainer(lambda: next(asked) > 10)
        assert "a job waits for a free CPU of the Ray cluster at 'local'" in caplog.text
        busy[0].kill()
        busy.append(on_ray.trainer())
        assert "for a CPU of Ray's computes now" in caplog.text
    finally:
        for trainer in busy:
            trainer.kill()
            trainer.end()


@needs_ray
def test_a_process_that_finds_somebody_else_is_told_of(
    on_ray: RayNursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stranger(listener: Any, _key: bytes, greeting: object) -> None:
        assert accepted(listener, b"another", greeting) is None

    monkeypatch.setattr(lab.jobs.ray_nursery, "accepted", stranger)
    with pytest.raises(TrainerDied, match=r"ConnectionError: .*not the service that asked for"):
        on_ray.trainer()


@needs_ray
async def test_a_training_goes_on_when_the_cluster_is_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lab.jobs.ray_nursery, "_AGAIN_S", 0.1)
    expected = await trained(tmp_path / "thread", None, training(epochs=25))
    with closing(RayNursery("local")) as nursery:
        nursery.start()
        async with open_jobs(tmp_path / "ray", nursery) as jobs:
            job = await jobs.submit(training(epochs=25))
            await metric(jobs, job.id, 4)
            nursery._address = "127.0.0.1:9"
            assert nursery._cluster is not None
            nursery._cluster._process.kill()  # as Ray does when its cluster goes away
            async with asyncio.timeout(LIMIT_S):
                while "jobs wait for the Ray cluster: ray: no cluster at" not in caplog.text:
                    await asyncio.sleep(0.05)
            nursery._address = "local"
            assert (await ended(jobs, job.id)).error == ""
            assert "the Ray cluster at 'local' is there again" in caplog.text
            assert lasting(await jobs.result(job.id)) == expected["result"]


@needs_ray
def test_who_waits_for_the_cluster_can_be_stopped() -> None:
    with (
        closing(RayNursery("127.0.0.1:9")) as nursery,
        pytest.raises(Stopped, match="before its process had started"),
    ):
        nursery.trainer(lambda: True)


@needs_ray
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_cluster_that_has_lost_this_machine_is_left() -> None:
    """Ray itself would not notice where another cluster answers at the same address by then."""
    with closing(RayNursery("local")) as nursery:
        first = nursery.trainer()
        assert nursery._cluster is not None
        for pid in children(nursery._cluster._process.pid):
            if Path(f"/proc/{pid}/comm").read_text() == "raylet\n":
                os.kill(pid, signal.SIGKILL)
        first.line.poll(LIMIT_S)
        assert nursery._cluster.gone
        first.kill()
        assert first.end().startswith("ray: the cluster at 'local' is lost: this machine is none")
        second = nursery.trainer()
        second.kill()
        assert second.end() == "it has ended"


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


ORPHANS = """
import os
import pickle
import signal
from lab.jobs.ray_nursery import RayNursery
import tiny_jobs
nursery = RayNursery("local")
trainer = nursery.trainer()
trainer.line.send(pickle.dumps((tiny_jobs.leave_a_sign, None)))
_, _, (metric,) = trainer.line.recv()
print(metric["done"], metric["of"], nursery._cluster._process.pid, flush=True)
trainer.line.recv()
"""


@needs_ray
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_nothing_outlives_a_killed_service() -> None:
    """Neither a trainer in the midst of arithmetic nor the cluster that it has started."""
    command = [sys.executable, "-c", ORPHANS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        watched = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(watched) == 3
        assert select.select(watched, [], [], 0)[0] == []
        parent.send_signal(signal.SIGKILL)
    assert all([has_ended(process) for process in watched])


@needs_ray
def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ray: no cluster at '127\.0\.0\.1:9'"):
        RayNursery("127.0.0.1:9").start()


def test_a_strange_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither auto, nor local, nor HOST:PORT"):
        RayNursery("somewhere")


def test_without_the_extra_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no Ray here')")
    monkeypatch.syspath_prepend(tmp_path)  # of the process that would connect, too
    with pytest.raises(ConfigError, match=r'pip install "pnnlab\[ray\]".*no Ray here'):
        RayNursery("local").start()

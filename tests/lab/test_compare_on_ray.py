"""The runs of a comparison on a Ray cluster of this machine; and what is said without Ray."""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from lab.bench_config import BenchConfig, load_bench
from lab.comparison import on_ray
from lab.comparison.local import FanOut, LocalRuns, Work, train_alone
from lab.comparison.on_ray import OnRay, open_ray
from lab.comparison.plan import Comparison, OnProgress, Outcome, Progress, plan_comparison
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.errors import ConfigError, TrainerDied
from once_killed import die, train_killed_once

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra ray: Ray is not installed"
)


def toy() -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    features = 0.3 * labels[:, None] + 0.3 * rng.random((40, 12))
    return Dataset("toy", features, labels.astype(np.int64), ("a", "b", "c"), None, "made up")


def small(**options: Any) -> Comparison:
    quick = {"epochs": 2, "layers": 1, "twin_kind": "neural", "twin_rows": (20,)}
    return plan_comparison(**{**quick, **options})


PLAN = small(methods=("pat-refit", "in-silico"), seeds=2)


def quietly(progress: Progress) -> None:
    """Show no progress."""


def run(
    elsewhere: FanOut | None,
    tell: OnProgress = quietly,
    plan: Comparison = PLAN,
    bench: BenchConfig = BENCH,
) -> Outcome:
    torch.manual_seed(0)  # the neural twin starts from torch's own generator
    return LocalRuns(plan, bench, toy(), tell, elsewhere=elsewhere)(20)


def without_clock(outcome: Outcome) -> list[dict[str, Any]]:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k != "seconds"}
        return [plain(v) for v in value] if isinstance(value, list) else value

    return [plain(dict(result)) for result in outcome.results]


@pytest.fixture(scope="module")
def cluster() -> Iterator[OnRay]:
    with open_ray("local") as opened:
        yield opened


@pytest.fixture(scope="module")
def alone() -> Outcome:
    return run(None)


@needs_ray
def test_a_cluster_finds_what_one_process_finds_in_the_plans_order(
    cluster: OnRay, alone: Outcome
) -> None:
    seen: list[Progress] = []
    outcome = run(cluster, seen.append)
    assert without_clock(outcome) == without_clock(alone)
    assert outcome.twin["digest"] == alone.twin["digest"]
    assert [(r["method"], r["seed"]) for r in outcome.results] == [
        ("pat-refit", 0),
        ("pat-refit", 1),
        ("in-silico", 0),
        ("in-silico", 1),
    ]
    assert sorted((p.run, p.done) for p in seen if p.stage == "train") == sorted(
        (f"{method} seed {seed}", done)
        for method in PLAN.methods
        for seed in (0, 1)
        for done in (1, 2)
    )


@needs_ray
def test_a_run_whose_process_is_killed_is_done_again_to_the_same_numbers(
    cluster: OnRay, alone: Outcome, tmp_path: Path
) -> None:
    def killing(
        _work: Work, configs: Sequence[TrainConfig], common: bytes, tell: OnProgress
    ) -> list[dict[str, Any]]:
        return cluster(partial(train_killed_once, tmp_path / "killed"), configs, common, tell)

    outcome = run(killing)
    assert (tmp_path / "killed").exists()
    assert without_clock(outcome) == without_clock(alone)


@needs_ray
def test_a_run_that_dies_again_and_again_is_named(cluster: OnRay) -> None:
    with pytest.raises(TrainerDied, match="pat seed 0"):
        cluster(die, [TrainConfig(method="pat")], b"", quietly)


@needs_ray
def test_a_runs_own_error_is_raised_as_it_is(cluster: OnRay) -> None:
    plan = small(methods=("pat",), split="talker")  # the toy names no talkers
    common = LocalRuns(plan, BENCH, toy(), quietly)._common(cast(Any, None))
    with pytest.raises(ConfigError, match=r"\A[^\n]*names no talkers[^\n]*\Z"):
        cluster(train_alone, plan.configs(plan.twin_fields(20)), common, quietly)


@needs_ray
def test_a_node_with_other_versions_is_refused(
    cluster: OnRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {**on_ray.software(), "torch": "1.0"}
    monkeypatch.setattr(on_ray, "software", lambda: expected)
    with pytest.raises(ConfigError, match=r"other software on .*: torch \S+, not 1\.0"):
        cluster(train_alone, [TrainConfig()], b"", quietly)


@needs_ray
def test_ray_reports_no_usage_and_leaves_sigterm_to_us(cluster: OnRay) -> None:
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@needs_ray
@pytest.mark.parametrize("port", [9, 99999])
def test_a_cluster_that_is_not_there_is_named(port: int) -> None:
    address = f"127.0.0.1:{port}"
    with pytest.raises(ConfigError, match=f"no cluster at '{address}'"), open_ray(address):
        pass


@pytest.mark.parametrize("address", ["", "somewhere", "ray://127.0.0.1:10001", "a:b"])
def test_a_strange_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="neither auto, nor local, nor HOST:PORT"):
        open_ray(address).__enter__()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "pnnlab\[ray\]"'):
        open_ray("local").__enter__()


def test_a_real_bench_goes_to_no_cluster() -> None:
    real = BENCH.model_dump()
    real["instruments"]["shaper"]["address"] = "http://127.0.0.1:9"

    def never(*_: Any) -> list[dict[str, Any]]:
        raise AssertionError("runs of a real bench")

    with pytest.raises(ConfigError, match="ray: a real bench is one device"):
        run(never, bench=BenchConfig.model_validate(real))

"""The comparison: its plan, its JSON, and the runs behind it, here and on a service."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.client import Client, ServiceError
from lab.comparison.local import LocalRuns, open_scheduler, scheduled_apparatus
from lab.comparison.plan import Comparison, Outcome, Progress, plan_comparison
from lab.comparison.service import ServiceRuns
from lab.comparison.summary import compare, summarise
from lab.comparison.table import comparison_text
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.errors import ConfigError, Conflict, SystemClosed
from lab.events import Event
from lab.network_config import NetworkConfig
from lab.rigs import with_rigs

BENCH = Path(__file__).parents[2] / "bench.toml"
ERROR = {"r2": 0.97, "normalised": 0.061, "shape_r2": 0.9}
TWIN = {
    "kind": "structured",
    "rows": 300,
    "hardware_rows": 500,
    "random": ERROR,
    "task": {**ERROR, "normalised": 0.05},
}
ROW_TIME_S = 0.75


def quietly(progress: Progress) -> None:
    """Show no progress."""


def result(method: str, seed: int, control: str | None = None) -> dict[str, Any]:
    on_device = {"pat-refit": 0.9, "in-silico": 0.4, "pat": 0.3}[method] + 0.02 * seed
    return {
        "method": method,
        "control": control,
        "seed": seed,
        "test_accuracy": on_device,
        "twin_accuracy": 0.95 if method == "in-silico" else None,
        "spread_accuracy": None,
        "clamped_fraction": None if control == "identity" else 0.1 + 0.2 * seed,
        "twin_error_task": None if control == "identity" else 0.05,
        "confusion": [[20, 1], [0, 14]],
        "checks": [],
        "audits": [],
        "drifts": [],
        "ledger": {"twin": 500, "initialisation": 0, "training": 4000, "test": 350},
        "path": "wire",
        "train_images": 175,
        "baseline": 0.96 + 0.01 * seed,
        "rows": 4000 if method == "pat-refit" else 0,
        "seconds": 10.0 + seed,
        "instrument_hours": 0.8 if method == "pat-refit" else 0.0,
    }


PLAN = plan_comparison(methods=("pat-refit", "in-silico"), seeds=2)
CONFIG = TrainConfig().model_dump(mode="json")
OUTCOME = Outcome(TWIN, [result(m, s) for m in PLAN.methods for s in range(2)], CONFIG, gap=1.0)


# the plan


def test_every_method_gets_every_seed_and_the_same_twin() -> None:
    twin = PLAN.twin_fields(500)
    assert twin == {"rows": 500, "seed": 0}
    configs = PLAN.configs(twin)
    assert [(c.method, c.seed) for c in configs] == [
        ("pat-refit", 0),
        ("pat-refit", 1),
        ("in-silico", 0),
        ("in-silico", 1),
    ]
    assert {(c.twin.rows, c.twin.seed) for c in configs} == {(500, 0)}


def test_what_the_plan_leaves_open_the_configs_leave_open_too() -> None:
    """So that the recipe of the system and the task fills it, here as on a service."""
    given = {"system", "task", "method", "seed", "split", "twin"}
    for config in PLAN.configs(PLAN.twin_fields(None)):
        assert config.model_fields_set == given
        assert config.twin.model_fields_set == {"seed"}
    plan = plan_comparison(
        methods=("pat",),
        layers=2,
        epochs=4,
        rows=900,
        checks=3,
        path="plant",
        quick=True,
        train_images=100,
        test_images=50,
        twin_kind="filter",
    )
    (config,) = plan.configs(plan.twin_fields(None))
    assert config.model_fields_set == given | {
        "network",
        "epochs",
        "rows",
        "checks",
        "path",
        "quick",
        "train_images",
        "test_images",
    }
    assert config.network.model_fields_set == {"layers"}
    assert config.twin.kind == "filter"


def test_controls_are_runs_of_their_own_seeds() -> None:
    plan = plan_comparison(
        methods=("pat",), seeds=3, controls=("identity", "output_refit"), control_seeds=2
    )
    configs = plan.configs(plan.twin_fields(None))
    assert [(c.control, c.method, c.seed) for c in configs[3:]] == [
        ("identity", "pat", 0),
        ("identity", "pat", 1),
        ("output_refit", "in-silico", 0),
        ("output_refit", "in-silico", 1),
    ]
    assert all(c.control is None for c in configs[:3])
    assert plan.runs == len(configs) == 7


def test_a_network_of_ones_own_goes_to_every_run() -> None:
    network = {"after": [{"kind": "linear"}]}
    plan = plan_comparison(methods=("phyll", "pat"), network=network, layers=2)
    for config in plan.configs({}):
        sent = config.model_dump(mode="json", exclude_unset=True)["network"]
        assert sent == {"after": [{"kind": "linear"}], "layers": 2}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"methods": ("pat", "sorcery")}, "methods.1"),
        ({"methods": ()}, "methods"),
        ({"methods": ("pat", "pat")}, r"methods.*stands twice"),
        ({"methods": ("pat",), "seeds": 0}, "seeds"),
        ({"methods": ("pat",), "twin_rows": ("300", "3")}, "twin_rows.1"),
        ({"methods": ("pat",), "twin_rows": ("many",)}, "twin_rows.0"),
        ({"methods": ("pat",), "task": "chess"}, "task"),
        ({"methods": ("pat",), "controls": ("placebo",)}, "controls.0"),
        ({"methods": ("pat",), "path": "air"}, "path"),
        ({"methods": ("pat",), "rows": 0}, "rows"),
        ({"methods": ("pat",), "epoch": 3}, "epoch"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        plan_comparison(**options)


# its JSON


def test_summary_holds_what_a_reader_compares() -> None:
    summary = json.loads(json.dumps(summarise(PLAN, OUTCOME)))
    assert (summary["system"], summary["task"], summary["split"]) == ("optics", "vowels", "random")
    assert (summary["gap"], summary["twin_rows"], summary["epochs"]) == (1.0, 300, 60)
    assert summary["twin"] == TWIN
    baseline = summary["baseline"]["logistic_regression"]
    assert baseline["accuracy"] == [0.96, 0.97]
    assert baseline["mean"] == pytest.approx(0.965)
    refit = summary["methods"]["pat-refit"]
    assert refit["accuracy"] == [0.9, 0.92]
    assert refit["mean"] == pytest.approx(0.91)
    assert refit["min"] == 0.9
    assert refit["standard_error"] == pytest.approx(0.01)
    assert (refit["rows"], refit["rows_per_seed"]) == (8000, [4000, 4000])
    assert (refit["seconds"], refit["seconds_per_seed"]) == (21.0, [10.0, 11.0])
    assert refit["instrument_hours"] == pytest.approx(1.6)
    assert "twin_accuracy" not in refit
    silico = summary["methods"]["in-silico"]
    assert (silico["twin_accuracy"], silico["twin_accuracy_mean"]) == ([0.95, 0.95], 0.95)
    assert silico["rows"] == 0
    assert refit["ledger_per_seed"] == [OUTCOME.results[0]["ledger"]] * 2
    assert (summary["path"], summary["train_images"], summary["test_images"]) == ("wire", 175, 35)
    assert (summary["layers"], summary["parallel"], summary["batch"]) == (5, 1, 32)
    assert summary["row_budget"] is None
    assert summary["clamped_fraction"] == pytest.approx(0.2)  # of the first method's runs
    assert summary["twin_error_task"] == pytest.approx(0.05)
    assert summary["controls"] == {}
    assert "checks_per_seed" not in refit
    assert "spread_accuracy" not in refit


def test_the_summary_says_what_the_runs_used_where_the_plan_left_it_open() -> None:
    used = TrainConfig(epochs=7, rows=900, network=NetworkConfig(layers=3, parallel=2))
    outcome = Outcome(TWIN, OUTCOME.results, used.model_dump(mode="json"), gap=None)
    summary = summarise(PLAN, outcome)
    assert (summary["epochs"], summary["layers"], summary["parallel"]) == (7, 3, 2)
    assert summary["row_budget"] == 900


def test_checks_and_the_spread_test_are_listed_by_seed_where_there_were_any() -> None:
    checks = [{"step": 3, "rows": 900, "accuracy": 0.5}]
    results = [{**r, "checks": checks, "spread_accuracy": 0.8} for r in OUTCOME.results]
    refit = summarise(PLAN, Outcome(TWIN, results, CONFIG, 1.0))["methods"]["pat-refit"]
    assert refit["checks_per_seed"] == [checks, checks]
    assert refit["spread_accuracy"] == [0.8, 0.8]
    assert refit["spread_accuracy_mean"] == pytest.approx(0.8)


def test_controls_stand_beside_the_methods_not_among_them() -> None:
    plan = PLAN.model_copy(update={"controls": ("identity", "physics_only")})
    results = [*OUTCOME.results, result("pat", 0, control="identity")]
    summary = summarise(plan, Outcome(TWIN, results, CONFIG, 1.0))
    assert summary["methods"] == summarise(PLAN, OUTCOME)["methods"]
    identity = summary["controls"]["identity"]
    assert (identity["mean"], identity["clamped_fraction"]) == (0.3, None)
    left_out = summary["controls"]["physics_only"]
    assert left_out["mean"] is None
    assert "no physical parameters" in left_out["reason"]


def test_one_seed_has_no_standard_error() -> None:
    plan = plan_comparison(methods=("pat-refit",), seeds=1)
    summary = summarise(plan, Outcome(TWIN, [result("pat-refit", 0)], CONFIG, gap=None))
    assert summary["methods"]["pat-refit"]["standard_error"] is None
    assert summary["gap"] is None


def test_several_numbers_of_twin_rows_give_several_runs() -> None:
    asked: list[tuple[int | None, float | None]] = []

    def run(rows: int | None, gap: float | None) -> Outcome:
        asked.append((rows, gap))
        return replace(OUTCOME, twin={**TWIN, "rows": rows or 300})

    one = compare(PLAN, run)
    assert one["twin_rows"] == 300
    several = compare(PLAN.model_copy(update={"twin_rows": (300, 600)}), run)
    assert [r["twin_rows"] for r in several["runs"]] == [300, 600]
    gaps = compare(PLAN.model_copy(update={"gaps": (0.0, 1.0)}), run)
    assert len(gaps["runs"]) == 2
    assert asked == [(None, None), (300, None), (600, None), (None, 0.0), (None, 1.0)]


def test_the_table_shows_accuracy_cost_and_baseline() -> None:
    lines = comparison_text(summarise(PLAN, OUTCOME)).splitlines()
    cells = {line.split("  ")[0]: line for line in lines}
    assert lines[0] == (
        "vowels on optics, gap 1, split random: 5 layers, 60 epochs of 175 samples, "
        "measured by wire"
    )
    assert "300 rows (500 measured with those for its errors), normalised error" in lines[1]
    assert "error 6.1 % on random inputs and 5.0 % on the task's" in lines[1]
    assert cells["pat-refit"].split() == (
        ["pat-refit", "91.0", "%", "90.0", "%", "90.0,", "92.0", "4,000", "0.8", "10"]
    )
    assert "95.0, 95.0" in cells["in-silico"]
    assert "96.5 %" in cells["logistic regression"]


def test_several_tables_end_with_what_calibration_changes() -> None:
    plan = PLAN.model_copy(update={"twin_rows": (300, 5000)})
    text = comparison_text(
        compare(plan, lambda rows, gap: replace(OUTCOME, twin={**TWIN, "rows": rows}))
    )
    last = text[text.index("What calibration changes") :].splitlines()
    assert last[2].split("  ")[0] == "twin rows"
    assert last[-1].split() == ["5,000", "6.1", "%", "91.0", "%", "41.0", "%"]


# the runs here


@pytest.fixture(scope="module")
def bench() -> BenchConfig:
    return load_bench(BENCH)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    features = 0.3 * labels[:, None] + 0.3 * rng.random((40, 12))
    return Dataset("toy", features, labels.astype(np.int64), ("a", "b", "c"), None, "made up")


def small(**options: Any) -> Comparison:
    """Return a plan of little work: 27 training samples, one layer, a quick twin."""
    quick = {"epochs": 2, "layers": 1, "twin_kind": "neural", "twin_rows": (20,)}
    return plan_comparison(**{**quick, **options})


def run_small(plan: Comparison, bench: BenchConfig, dataset: Dataset, workers: int = 1) -> Outcome:
    torch.manual_seed(0)  # the neural twin starts from torch's own generator
    return LocalRuns(plan, bench, dataset, quietly, workers)(plan.twin_rows[0])


def comparable(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the results without what the clock says."""
    kept = [{k: v for k, v in r.items() if k not in ("seconds", "curve")} for r in outcome.results]
    curves = [[(p["loss"], p["rows"]) for p in r["curve"]] for r in outcome.results]
    return [{**r, "curve": curve} for r, curve in zip(kept, curves, strict=True)]


def test_methods_share_one_twin_and_rows_are_counted(bench: BenchConfig, dataset: Dataset) -> None:
    seen: list[Progress] = []
    plan = small(methods=("pat-refit", "in-silico"), seeds=1)
    outcome = LocalRuns(plan, bench, dataset, seen.append)(20)
    refit, silico = outcome.results
    assert (refit["method"], silico["method"]) == ("pat-refit", "in-silico")
    # scales are set from 27 samples, and then there are two epochs of them
    assert (refit["rows"], silico["rows"]) == (27 * 3, 0)
    assert refit["instrument_hours"] == pytest.approx(27 * 3 * ROW_TIME_S / 3600)
    assert silico["twin_digest"] == outcome.twin["digest"]
    assert outcome.twin["rows"] == 20
    assert outcome.twin["task"] is not None
    assert outcome.gap == 1.0
    trained = [(p.run, p.done, p.total) for p in seen if p.stage == "train"]
    # a batch of 27 samples is one step an epoch
    assert trained == [
        ("pat-refit seed 0", 1, 2),
        ("pat-refit seed 0", 2, 2),
        ("in-silico seed 0", 1, 2),
        ("in-silico seed 0", 2, 2),
    ]
    assert outcome.config["epochs"] == 2
    assert outcome.config["network"]["layers"] == 1
    assert seen[0].stage == "fit"


def test_processes_find_what_one_process_finds(bench: BenchConfig, dataset: Dataset) -> None:
    plan = small(methods=("pat",), seeds=2)
    seen: list[Progress] = []
    alone = run_small(plan, bench, dataset)
    torch.manual_seed(0)
    together = LocalRuns(plan, bench, dataset, seen.append, workers=2)(20)
    assert comparable(together) == comparable(alone)
    assert sorted((p.run, p.done) for p in seen if p.stage == "train") == [
        (f"pat seed {seed}", epoch) for seed in (0, 1) for epoch in (1, 2)
    ]


def test_a_run_that_fails_in_a_process_fails_the_comparison(
    bench: BenchConfig, dataset: Dataset
) -> None:
    plan = small(methods=("pat",), seeds=2, split="talker")  # the toy names no talkers

    with pytest.raises(ConfigError, match="names no talkers"):
        LocalRuns(plan, bench, dataset, quietly, workers=2)._train_in_processes(
            plan.configs(plan.twin_fields(20)), cast(Any, None)
        )


def test_another_device_gives_other_spectra(bench: BenchConfig) -> None:
    half = torch.full((1, 50), 0.5)
    spectra = []
    for config in (bench, with_rigs(bench, device_seed=7), with_rigs(bench, gap=0.5)):
        with open_bench(config) as opened:
            spectra.append(opened.measure("optics")(half, half))
    for other in spectra[1:]:
        assert (spectra[0] - other).abs().max() > 0.1 * spectra[0].max()


def test_rigs_are_changed_within_their_limits_only(bench: BenchConfig) -> None:
    assert with_rigs(bench, gap=None, device_seed=None) is bench
    with pytest.raises(ConfigError, match="gap"):
        with_rigs(bench, gap=3.5)
    with pytest.raises(ConfigError, match="gap: only a simulated bench"):
        with_rigs(bench.model_copy(update={"rigs": {}}), gap=1.0)


def test_a_real_bench_is_one_device(bench: BenchConfig, dataset: Dataset) -> None:
    real = bench.model_dump()
    real["instruments"]["shaper"]["address"] = "http://127.0.0.1:9"
    config = BenchConfig.model_validate(real)
    with pytest.raises(ConfigError, match="takes one worker"):
        run_small(small(methods=("pat",)), config, dataset, workers=2)
    with pytest.raises(ConfigError, match="'ideal'"):
        run_small(small(methods=("ideal",)), config, dataset)


def test_an_unknown_system_is_refused_with_those_there_are(
    bench: BenchConfig, dataset: Dataset
) -> None:
    with pytest.raises(ConfigError, match=r"no 'plate'.*optics"):
        run_small(small(methods=("pat",), system="plate"), bench, dataset)


def test_the_scheduler_is_closed_at_the_end_of_the_block(bench: BenchConfig) -> None:
    half = torch.full((1, 50), 0.5)
    with open_bench(bench, start=False) as opened:
        with open_scheduler(opened) as scheduler:
            device = scheduled_apparatus(opened, scheduler, TrainConfig()).open_device(0, 0)
            assert device(half, half).shape == (1, 50)
            assert scheduler.status("optics").rows_done == 1
        with pytest.raises(SystemClosed):
            device(half, half)
    assert "scheduler" not in {thread.name for thread in threading.enumerate()}


# the runs on a service


class FakeService:
    """Stand in for a service and its clients: jobs end at once, as `endings` says."""

    def __init__(self, endings: dict[tuple[str, int], str] | None = None) -> None:
        self.endings = endings or {}
        self.network = CONFIG["network"]
        self.configs: dict[str, dict[str, Any]] = {}
        self.cancelled: list[str] = []
        self.open = 0

    @contextmanager
    def client(self) -> Iterator[Client]:
        self.open += 1
        try:
            yield cast(Client, self)
        finally:
            self.open -= 1

    def fit_twin(self, **fields: Any) -> dict[str, Any]:
        self.configs["fit"] = fields
        return {"id": "fit"}

    def submit(self, config: Any) -> dict[str, Any]:
        job_id = f"{config.method}/{config.seed}"
        self.configs[job_id] = config.model_dump(exclude_unset=True)
        return {"id": job_id, "config": {**CONFIG, "network": self.network}}

    def watch(self, job_id: str) -> Iterator[Event]:
        yield Event("state", None, {"state": "running"})
        if job_id == "fit":
            yield Event("metric", 1, {"kind": "fit", "done": 0, "of": 1000, "loss": 1.0})
            yield Event("end", None, {"state": "succeeded", "error": ""})
            return
        metric = {"kind": "epoch", "epoch": 1, "step": 6, "of": 360, "accuracy": 0.5}
        yield Event("metric", 1, metric)
        method, _, seed = job_id.partition("/")
        state = self.endings.get((method, int(seed)), "succeeded")
        yield Event("end", None, {"state": state, "error": "" if state == "succeeded" else "why"})

    def result(self, job_id: str) -> dict[str, Any]:
        if job_id == "fit":
            return {"twin": "abc", "report": TWIN}
        method, _, seed = job_id.partition("/")
        return result(method, int(seed))

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)
        raise Conflict(f"job {job_id} has ended")


@pytest.mark.parametrize(("theta", "trained"), [("dark", 2), ("data", 1)])
def test_a_service_gets_no_control_that_its_network_leaves_no_room_for(
    theta: str, trained: int
) -> None:
    service = FakeService()
    service.network = {"layers": 1, "theta": theta}
    plan = plan_comparison(methods=("in-silico",), controls=("digital_only",))
    ServiceRuns(plan, service.client, quietly)(None)
    service.configs.pop("fit")
    assert len(service.configs) == trained


def test_a_service_gets_the_twin_first_and_then_every_run() -> None:
    service = FakeService()
    seen: list[Progress] = []
    outcome = ServiceRuns(PLAN, service.client, seen.append)(300)
    assert outcome.results == OUTCOME.results
    assert outcome.twin == TWIN
    assert outcome.gap is None
    assert service.configs.pop("fit") == {
        "system": "optics",
        "rows": 300,
        "seed": 0,
        "task": "vowels",
    }
    assert {config["twin"]["id"] for config in service.configs.values()} == {"abc"}
    assert list(service.configs) == ["pat-refit/0", "pat-refit/1", "in-silico/0", "in-silico/1"]
    assert seen[0] == Progress("fit", "twin on 300 rows", 0, 1000)
    assert sorted(p.run for p in seen[1:]) == sorted(
        f"{m} seed {s}" for m in PLAN.methods for s in range(2)
    )
    assert (seen[1].done, seen[1].total) == (6, 360)
    assert outcome.config == CONFIG
    assert (service.cancelled, service.open) == ([], 0)


def test_a_job_that_fails_fails_the_comparison_and_cancels_the_rest() -> None:
    service = FakeService({("in-silico", 0): "failed"})
    with pytest.raises(ServiceError, match=r"in-silico seed 0 .*failed: why"):
        ServiceRuns(PLAN, service.client, quietly)(300)
    everything = {"pat-refit/0", "pat-refit/1", "in-silico/0", "in-silico/1"}
    assert set(service.cancelled) == everything
    assert service.open == 0


def test_an_interrupt_cancels_the_jobs() -> None:
    service = FakeService()

    def interrupt(progress: Progress) -> None:
        if progress.stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ServiceRuns(PLAN, service.client, interrupt)(300)
    assert "pat-refit/0" in service.cancelled

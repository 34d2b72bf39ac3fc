"""The command `pnnlab compare`."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.bench_config import BenchConfig, load_bench
from lab.client import Client, ServiceError
from lab.comparison.plan import Comparison, OnProgress, Run, plan_comparison
from lab.comparison.summary import compare as run_comparison
from lab.comparison.table import comparison_text
from lab.config import CONTROLS, METHODS
from lab.errors import ConfigError, Conflict
from lab.rigs import is_simulated, with_rigs
from server.cli_bench import AsJson, BenchFile, find_bench
from server.cli_options import Epochs, Layers, folder_to_write
from server.config_files import read_config
from server.interrupts import ended_by_signals
from server.job_bar import follow
from server.run_bars import CountBar

if TYPE_CHECKING:
    from lab.comparison.local import FanOut

_PLAN = Comparison(methods=("pat-refit",))


Methods = Annotated[str, typer.Option(help=f"Of {', '.join(METHODS)}.")]
Controls = Annotated[str, typer.Option(help=f"Of {', '.join(CONTROLS)}; all or none.")]
Seeds = Annotated[int | None, typer.Option(help="Runs of each method: seeds 0, 1, ...")]
TwinRows = Annotated[
    str, typer.Option(help="Measured rows of the twin's fit; several give several tables.")
]
TwinKind = Annotated[str | None, typer.Option(help="structured, filter or neural.")]
EqualRows = Annotated[
    int | None, typer.Option(help="Equal hardware rows for all, instead of equal epochs.")
]
Network = Annotated[
    Path | None, typer.Option(help="TOML or JSON file with a [network], instead of the usual.")
]
TrainImages = Annotated[int | None, typer.Option(help="Training samples. [all]")]
TestImages = Annotated[int | None, typer.Option(help="Test samples. [all]")]
Checks = Annotated[int, typer.Option(help="Accuracy on validation rows so often in training.")]
RowPath = Annotated[
    str | None, typer.Option(help="wire, or plant: simulated, without driver and wire.")
]
Quick = Annotated[bool, typer.Option("--quick", help="A small run: minutes.")]
Gap = Annotated[
    str, typer.Option(help="0 to 3, instead of the bench file's; several give several tables.")
]
DeviceSeed = Annotated[int | None, typer.Option(help="Instead of the bench file's.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=64,
        help="Processes, each simulating a bench of its own. [simulated: a core, at most 2]",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Do the runs on this Ray cluster: auto, local or HOST:PORT. [PNNLAB_RAY_ADDRESS]"
    ),
]
OnService = Annotated[str | None, typer.Option(help="Run it as jobs of this service, not here.")]
Figures = Annotated[
    Path | None, typer.Option(help="Write table, JSON and figures (SVG) to this folder.")
]


def compare(
    system: Annotated[str, typer.Option(help="Physical system.")] = _PLAN.system,
    task: Annotated[str, typer.Option(help="Which data, such as vowels.")] = _PLAN.task,
    methods: Methods = "pat-refit,in-silico",
    controls: Controls = "all",
    seeds: Seeds = None,
    twin_rows: TwinRows = "",
    twin_kind: TwinKind = None,
    split: Annotated[str, typer.Option(help="random or talker.")] = _PLAN.split,
    epochs: Epochs = None,
    rows: EqualRows = None,
    network: Network = None,
    layers: Layers = None,
    train_images: TrainImages = None,
    test_images: TestImages = None,
    checks: Checks = 0,
    path: RowPath = None,
    quick: Quick = False,
    bench: BenchFile = None,
    gap: Gap = "",
    device_seed: DeviceSeed = None,
    workers: Workers = None,
    ray: Ray = None,
    url: OnService = None,
    figures: Figures = None,
    as_json: AsJson = False,
) -> None:
    """Train with several methods that share one twin; print accuracy on the device and cost."""
    plan = plan_comparison(
        system=system,
        task=task,
        methods=_parts(methods),
        controls={"all": CONTROLS, "none": ()}.get(controls, _parts(controls)),
        seeds=seeds or (1 if quick else 3),
        twin_rows=_parts(twin_rows) or (None,),
        gaps=_parts(gap) or (None,),
        twin_kind=twin_kind,
        split=split,
        epochs=epochs,
        rows=rows,
        network=None if network is None else read_config(network).get("network"),
        layers=layers,
        train_images=train_images,
        test_images=test_images,
        checks=checks,
        path=path,
        quick=quick,
    )
    if ray is not None and workers is not None:
        raise ConfigError("--ray: how many runs at a time is the cluster's; without --workers")
    if figures is not None:
        folder_to_write(figures, "--figures")
    with ended_by_signals():
        if url is None:
            result = _here(plan, bench, device_seed, workers, ray)
        else:
            if (bench, device_seed, workers, ray) != (None,) * 4 or plan.gaps != (None,):
                raise ConfigError(
                    "--url: bench, gap, device seed, workers and Ray are the service's"
                )
            result = _there(plan, url)
    typer.echo(json.dumps(result) if as_json else comparison_text(result))
    if figures is not None:
        from lab.report.comparison import write_comparison

        write_comparison(figures, result)


def _here(
    plan: Comparison,
    bench: Path | None,
    device_seed: int | None,
    workers: int | None,
    ray: str | None,
) -> dict[str, Any]:
    """Return what the runs find that this process does, or has done on a Ray cluster."""
    if workers is None:
        ray = ray or os.environ.get("PNNLAB_RAY_ADDRESS")
    config = with_rigs(load_bench(find_bench(bench, plan.system)), device_seed=device_seed)
    with CountBar(plan.runs) as bar, _elsewhere(ray) as elsewhere:
        return run_comparison(plan, _runs(plan, config, bar.show, workers, elsewhere))


def _there(plan: Comparison, url: str) -> dict[str, Any]:
    """Return what a service's job finds; the job is cancelled on the way out."""
    with Client(url) as lab:
        job = lab.compare(plan.model_dump(mode="json", exclude={"gaps"}))
        try:
            ended = follow(lab, job["id"])
        except BaseException:
            with suppress(Conflict, ServiceError):  # it has ended, or the service is gone
                lab.cancel(job["id"])
            raise
        if ended["state"] != "succeeded":
            raise ServiceError(f"job {job['id']}: {ended['state']}: {ended['error']}")
        return lab.result(job["id"])


@contextmanager
def _elsewhere(ray: str | None) -> "Iterator[FanOut | None]":
    """Connect to the Ray cluster if one is named."""
    if ray is None:
        yield None
        return
    from lab.comparison.on_ray import open_ray

    # Ray prints there that a process died; the result stands there alone
    with redirect_stdout(sys.stderr), open_ray(ray) as cluster:
        yield cluster


def _runs(
    plan: Comparison,
    bench: BenchConfig,
    on_progress: OnProgress,
    workers: int | None,
    elsewhere: "FanOut | None",
) -> Run:
    """Return what runs the plan on the bench, in this process, several, or elsewhere."""
    # torch takes seconds to import, and a service's client does without it
    from lab.comparison.local import LocalRuns
    from lab.datasets import load

    if workers is None:
        workers = min(2, os.cpu_count() or 1) if is_simulated(bench) else 1
    return LocalRuns(plan, bench, load(plan.task), on_progress, workers, elsewhere)


def _parts(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())

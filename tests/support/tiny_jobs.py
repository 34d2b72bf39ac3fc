"""Work for trainer processes that takes a moment: made-up data, and fits of three steps.

Processes find it by its import path, and import it each, so it imports little. `have_done` has
jobs do it.
"""

import contextlib
import functools
import logging
import os
import resource
import signal
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch

import lab.datasets
import lab.jobs.work
from lab.datasets import Dataset
from lab.jobs.desk import Assignment, Desk, Work
from lab.jobs.pipe_desk import LineHandler
from lab.jobs.work import do
from lab.twins import fit_system_twin
from twins.fitting import FitSettings

if TYPE_CHECKING:
    import pytest


def tiny_dataset(task: str, **_: object) -> Dataset:
    """Return 24 samples of 3 classes, whatever the task."""
    rng = np.random.default_rng(0)
    return Dataset(task, rng.random((24, 5)), np.arange(24) % 3, ("a", "b", "c"), None, "made up")


def small_dataset(task: str, **places: Any) -> Dataset:
    """Return as many features and classes as the task has, and few samples; or an upload."""
    if task.startswith("upload:"):
        return lab.datasets.load(task, **places)
    rng = np.random.default_rng(0)
    features, classes = (12, 7) if task == "vowels" else (49, 10)
    labels = np.arange(40) % classes
    names = tuple("0123456789"[:classes])
    return Dataset(task, rng.random((40, features)), labels, names, None, "made up")


def sixty_samples(task: str, **_: object) -> Dataset:
    """Return 60 samples with the features and classes of the vowels."""
    rng = np.random.default_rng(0)
    return Dataset(task, rng.random((60, 12)), np.arange(60) % 7, tuple("abcdefg"), None, "made up")


def have_done(monkeypatch: "pytest.MonkeyPatch", work: Work) -> None:
    """Let jobs do this work, a function of a module, from now on."""
    monkeypatch.setattr("lab.jobs.runner.do", work)


def tiny(assignment: Assignment, desk: Desk, steps: int = 3, load: Any = tiny_dataset) -> Any:
    """Do the job's real work on 24 samples, its twin fitted in a few steps."""
    quick = functools.partial(fit_system_twin, settings=FitSettings(steps=steps))
    with (
        patch.object(lab.jobs.work, "load", load),
        patch.object(lab.jobs.work, "fit_system_twin", quick),
    ):
        return do(assignment, desk)


def tiny_with_slow_fit(assignment: Assignment, desk: Desk) -> Any:
    """Do as `tiny`, with a fit that takes minutes."""
    return tiny(assignment, desk, steps=100_000)


def tiny_with_copies(assignment: Assignment, desk: Desk) -> Any:
    """Do as `tiny`, with a copy of the state after every step, however long one takes."""
    with patch.multiple("lab.snapshots", _COPY_EVERY_S=0.0, _WORTH=0):
        return tiny(assignment, desk)


def small(assignment: Assignment, desk: Desk) -> Any:
    """Do as `tiny`, on data as wide as the task's own."""
    return tiny(assignment, desk, load=small_dataset)


def sixty(assignment: Assignment, desk: Desk) -> Any:
    """Do as `tiny`, on a few more samples."""
    return tiny(assignment, desk, load=sixty_samples)


def real_data(assignment: Assignment, desk: Desk) -> Any:
    """Do as `tiny`, on the task's own data."""
    return tiny(assignment, desk, load=lab.datasets.load)


def tell_twin(assignment: Assignment, desk: Desk) -> Any:
    """Do as `tiny`; the result has the report of the twin that the training was given."""
    fitted = []
    train = lab.jobs.work.train

    def noted(config: Any, dataset: Any, twin: Any, *rest: Any, **options: Any) -> Any:
        fitted.append(twin.report())
        return train(config, dataset, twin, *rest, **options)

    with patch.object(lab.jobs.work, "train", noted):
        return {**tiny(assignment, desk), "fitted": fitted[0]}


def tell_threads(assignment: Assignment, desk: Desk) -> Any:
    """Fail with the number of torch's threads."""
    raise RuntimeError(f"{torch.get_num_threads()} threads of torch")


def tell_state(assignment: Assignment, desk: Desk) -> Any:
    """Fail with the process's id, and with what the jobs before might have left in it."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, LineHandler)]
    threads = torch.get_num_threads()
    raise RuntimeError(f"{os.getpid()}, {threads} threads of torch, {len(handlers)} handlers")


def die(assignment: Assignment, desk: Desk) -> Any:
    """Die as the kernel lets processes die that take too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_a_metric(assignment: Assignment, desk: Desk) -> Any:
    """Die after a metric that every attempt tells anew."""
    desk.go_back(0, 0)
    desk.metric({"kind": "fit", "done": 1, "of": 1, "loss": 0.0})
    desk.names("checkpoints")  # is answered after the metric was kept
    os.kill(os.getpid(), signal.SIGKILL)


def tiny_killed_once(assignment: Assignment, desk: Desk) -> Any:
    """Do as `tiny`, but die in the midst of a training that has not been killed before."""
    tell = desk.metric

    def tell_and_die(metric: Any) -> None:
        tell(metric)
        if metric.get("epoch") == 4 and "killed" not in desk.names("marks"):
            desk.write("marks/killed", b"")
            os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(desk, "metric", tell_and_die):
        return tiny(assignment, desk)


def hang(assignment: Assignment, desk: Desk) -> Any:
    """Do nothing for a long time."""
    time.sleep(3600)


def take_memory(assignment: Assignment, desk: Desk) -> Any:
    """Ask for more memory than there is."""
    limit = 1 << 33
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return {"sum": float(np.ones(1 << 32).sum())}


def leave_a_sign(assignment: Assignment, desk: Desk) -> Any:
    """Say by a metric which process this is, and then compute without ever looking up."""
    desk.metric({"kind": "fit", "done": os.getpid(), "of": os.getppid(), "loss": 0.0})
    while True:
        torch.rand(100, 100).svd()


def tell_files(assignment: Assignment, desk: Desk) -> Any:
    """Tell what is open here but for the standard streams."""
    return {"open": [os.readlink(f"/proc/self/fd/{fd}") for fd in _open_files() if fd > 2]}


def _open_files() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the listing is closed by now
            os.fstat(int(name))
            found.append(int(name))
    return found

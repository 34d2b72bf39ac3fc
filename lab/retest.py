"""Test a trained network again, on the device as it is now. Plain blocking code."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.apparatus import Apparatus
from lab.budget import budget, split_for
from lab.config import TrainConfig
from lab.datasets import Dataset
from lab.datasets.base import Indices
from lab.errors import ConfigError, Stopped
from lab.evaluation import Witness, confusion, predict, share
from lab.jobs.configs import EvaluateConfig
from lab.labels import network_features
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork, build_network
from lab.systems.base import never
from twins.base import DigitalTwin

_STREAM = 1 << 62  # and 2**31 streams for each seed of an evaluation: one for each of a training
_PARTS = 10  # in the order of time


@dataclass(frozen=True)
class Trained:
    """What a training left behind.

    job: its id. config: of the training, complete. classes, network: of its checkpoint file.
    twin: as it was at the end. result: of the job, plain.
    """

    job: str
    config: TrainConfig
    classes: tuple[str, ...]
    network: Mapping[str, Tensor]
    twin: DigitalTwin
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of the test: so many samples, measured from simulated time `time_s` on."""

    time_s: float
    samples: int
    accuracy: float


@dataclass(frozen=True)
class EvaluateResult:
    """A network now, and when its training job tested it; accuracies from 0 to 1.

    accuracy, confusion, clamped_fraction, twin_error: of `samples` test samples now, the twin being
    that of the end of the training. standard_error: of the accuracy, by the number of samples.
    parts: the test in the order of time. then, confusion_then, twin_error_then: what the job found.
    change: accuracy less then. rows: hardware rows measured.
    """

    job: str
    system: str
    task: str
    method: str
    classes: list[str]
    samples: int
    accuracy: float
    standard_error: float
    confusion: list[list[int]]
    parts: list[Part]
    clamped_fraction: float | None
    twin_error: float | None
    then: float
    change: float
    confusion_then: list[list[int]]
    twin_error_then: float | None
    rows: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def evaluate(
    config: EvaluateConfig,
    trained: Trained,
    dataset: Dataset,
    apparatus: Apparatus,
    *,
    on_metric: Callable[[dict[str, Any]], None] | None = None,
    stop: Callable[[], bool] = never,
) -> EvaluateResult:
    """Measure the test samples once and compare with what the training job found.

    Nothing is trained. Raises Stopped when `stop` says so, asked between parts, ConfigError for
    more samples than there are or other classes than the network's, and whatever measuring raises.
    """
    began = time.perf_counter()
    _refuse_others(trained, dataset)
    rows = torch.from_numpy(samples_to_test(config, trained.config, dataset))
    features = network_features(trained.config, dataset)
    labels = torch.from_numpy(dataset.labels).long()[rows]
    device = _open(config, trained.config, dataset, apparatus)
    network = _network(trained, features.shape[1], apparatus, device)
    witness = Witness(device, trained.twin)
    network.set_measure(witness)
    predicted, parts = _test(config, network, device, features[rows], labels, on_metric, stop)
    accuracy, shown = share(predicted, labels), witness.shown()
    then = trained.result
    return EvaluateResult(
        job=trained.job,
        system=trained.config.system,
        task=trained.config.task,
        method=trained.config.method,
        classes=list(trained.classes),
        samples=len(labels),
        accuracy=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / len(labels)),
        confusion=confusion(predicted, labels, len(trained.classes)),
        parts=parts,
        clamped_fraction=shown.clamped_fraction,
        twin_error=shown.twin_error,
        then=then["test_accuracy"],
        change=accuracy - then["test_accuracy"],
        confusion_then=then["confusion"],
        twin_error_then=then["twin_error_task"],
        rows=device.rows,
        seconds=time.perf_counter() - began,
    )


def samples_to_test(config: EvaluateConfig, like: TrainConfig, dataset: Dataset) -> Indices:
    """Return the numbers (samples,) of the training's test samples that are measured.

    Raises ConfigError for more than there are.
    """
    rows = split_for(like, dataset).test_idx
    if config.samples is None:
        return rows
    if config.samples > len(rows):
        raise ConfigError(
            f"samples: {config.samples} of the {len(rows)} test samples of job {config.job}"
        )
    return np.sort(np.random.default_rng(config.seed).permutation(rows)[: config.samples])


def rows_to_evaluate(config: EvaluateConfig, like: TrainConfig, dataset: Dataset) -> int:
    """Return how many hardware rows are measured; raise as `samples_to_test`."""
    return len(samples_to_test(config, like, dataset)) * like.rows_a_sample


def _refuse_others(trained: Trained, dataset: Dataset) -> None:
    if tuple(dataset.classes) != trained.classes:
        raise ConfigError(
            f"job: the network of {trained.job} tells {', '.join(trained.classes)}, the data set "
            f"'{dataset.name}' has {', '.join(dataset.classes)}: it is not that of the training"
        )


def _open(
    config: EvaluateConfig, like: TrainConfig, dataset: Dataset, apparatus: Apparatus
) -> DeviceMeasure:
    """Open the device on a stream of its own, at its age after the training's test and wait_s."""
    costs = budget(like, split_for(like, dataset))
    stream = _STREAM + (config.seed << 31) + like.seed
    device = apparatus.open_device(stream, costs.planned + costs.test)
    device.wait(like.test_span_s + config.wait_s)
    return device


def _network(
    trained: Trained, features: int, apparatus: Apparatus, device: DeviceMeasure
) -> PhysicalNetwork:
    d, config = apparatus.description, trained.config
    network = build_network(
        device,
        trained.twin,
        config.network,
        features=features,
        x_size=d.x.shape[0],
        theta_size=d.theta.shape[0],
        y_size=d.y.shape[0],
        classes=len(trained.classes),
        seed=config.seed,
    )
    network.load_state_dict(dict(trained.network))
    return network


def _test(
    config: EvaluateConfig,
    network: PhysicalNetwork,
    device: DeviceMeasure,
    features: Tensor,
    labels: Tensor,
    on_metric: Callable[[dict[str, Any]], None] | None,
    stop: Callable[[], bool],
) -> tuple[Tensor, list[Part]]:
    """Return the predictions (samples,) and the parts, each `span_s` / 10 after the last."""
    size = math.ceil(len(labels) / _PARTS)
    start_s, predictions, parts = device.time_s, [], []
    for i, (x, wanted) in enumerate(zip(features.split(size), labels.split(size), strict=True)):
        if stop():
            raise Stopped(f"evaluation stopped after {i * size} of {len(labels)} samples")
        device.wait(max(0.0, start_s + i * config.span_s / _PARTS - device.time_s))
        time_s = device.time_s
        predictions.append(predict(network, x))
        parts.append(Part(time_s, len(wanted), share(predictions[-1], wanted)))
        if on_metric is not None:
            done = i * size + len(wanted)
            on_metric({"kind": "part", "done": done, "of": len(labels), **asdict(parts[-1])})
    return torch.cat(predictions), parts

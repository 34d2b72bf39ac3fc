"""Train one network with one method on one task: plain blocking PyTorch.

Runs away from any event loop; what it measures with is handed in, so that the same code serves the
service's scheduler, a notebook and a test.
"""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lab.apparatus import Apparatus
from lab.baselines import logistic_regression
from lab.config import DIGITAL_METHODS, TrainConfig
from lab.datasets import Dataset, Split, split
from lab.errors import Stopped
from lab.measure import DeviceMeasure
from lab.methods import MethodParts, choose_method
from lab.micro_batches import AutoMicroBatches
from lab.models import PhysicalNetwork, build_network
from lab.pipeline import Pipeline
from lab.systems.base import never
from lab.train_result import EpochMetric, TrainResult
from lab.twins import FittedTwin
from twins.base import DigitalTwin, frozen

_PENALTY = 5.0  # weight of leaving the physical range
_INIT_ROWS = 256  # at most this many training samples set the initial scales
_EVALUATION_ROWS = 100


def train(
    config: TrainConfig,
    dataset: Dataset,
    fitted: FittedTwin,
    apparatus: Apparatus,
    *,
    on_metric: Callable[[EpochMetric], None] | None = None,
    stop: Callable[[], bool] = never,
) -> TrainResult:
    """Train and test; the fitted twin itself is not changed (a copy is).

    The test split is read once, at the end. Raises Stopped when `stop` says so (asked between
    steps), and whatever measuring raises.
    """
    return _Run(config, dataset, fitted, apparatus, on_metric, stop).execute()


def rows_to_measure(config: TrainConfig, dataset: Dataset) -> int:
    """Return the hardware rows of a run with its test; without those of a twin's fit."""
    parts = _split(config, dataset)
    samples = len(parts.test_idx) + 1  # one more for the spectrum
    if config.method not in DIGITAL_METHODS:
        samples += _training_samples(config, parts)
    return samples * config.network.layers


def _split(config: TrainConfig, dataset: Dataset) -> Split:
    parts = split(dataset, config.split, config.seed)
    return parts.for_choices() if config.holdout == "validation" else parts


def _training_samples(config: TrainConfig, parts: Split) -> int:
    """Return how many samples pass through the network before its test."""
    training = len(parts.train_idx)
    return min(training, _INIT_ROWS) + config.epochs * training


@dataclass(frozen=True)
class _Sums:
    """Of some samples of a training step: loss, range penalty, and how many were right."""

    loss: float
    penalty: float
    correct: int


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        fitted: FittedTwin,
        apparatus: Apparatus,
        on_metric: Callable[[EpochMetric], None] | None,
        stop: Callable[[], bool],
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.apparatus = apparatus
        self.on_metric = on_metric
        self.stop = stop
        self.split = _split(config, dataset)
        self.features = torch.from_numpy(dataset.features).float()
        self.labels = torch.from_numpy(dataset.labels).long()
        self.twin: DigitalTwin = frozen(deepcopy(fitted.twin))
        self.device = apparatus.open_device(config.seed, 0)
        self.parts: MethodParts = choose_method(
            config.method,
            self.device,
            self.twin,
            twin_error=fitted.random.normalised,
            open_oracle=apparatus.open_oracle,
            seed=config.seed,
        )
        self.network: PhysicalNetwork = self._build()
        self.pipeline = self._open_pipeline()
        self.curve: list[EpochMetric] = []
        self.start = time.perf_counter()

    def _build(self) -> PhysicalNetwork:
        d = self.apparatus.description
        return build_network(
            self.parts.measure,
            self.parts.differentiate,
            self.config.network,
            x_size=d.x.shape[0],
            theta_size=d.theta.shape[0],
            y_size=d.y.shape[0],
            classes=len(self.dataset.classes),
            seed=self.config.seed,
        )

    def _open_pipeline(self) -> Pipeline[PhysicalNetwork]:
        number: int | AutoMicroBatches
        if self.config.micro_batches == "auto":
            number = AutoMicroBatches(self.device.hardware_s, self.device.description.row_time_s)
        else:
            number = self.config.micro_batches
        return Pipeline(self.network, self.parts.share, number, self.device.cancel)

    def execute(self) -> TrainResult:
        with self.pipeline:
            self._train()
        return self._test()

    def _train(self) -> None:
        rows = torch.from_numpy(self.split.train_idx)
        self.network.initialise(self.features[rows[:_INIT_ROWS]])
        optimiser = torch.optim.Adam(
            [
                {"params": self.network.physical_parameters(), "lr": self.config.rate_theta},
                {"params": self.network.digital_parameters(), "lr": self.config.rate_digital},
            ]
        )
        steps = self.config.epochs * math.ceil(len(rows) / self.config.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        generator = torch.Generator().manual_seed(self.config.seed)
        for epoch in range(self.config.epochs):
            order = rows[torch.randperm(len(rows), generator=generator)]
            self._epoch(epoch, order, optimiser, schedule)

    def _epoch(
        self,
        epoch: int,
        order: Tensor,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        losses, penalties, correct = 0.0, 0.0, 0
        for batch in order.split(self.config.batch):
            if self.stop():
                raise Stopped(f"training stopped in epoch {epoch + 1} of {self.config.epochs}")
            optimiser.zero_grad()
            parts = self.pipeline.step(batch, self._loss)
            optimiser.step()
            schedule.step()
            if self.parts.refit is not None:
                self.parts.refit.step()
            for part in parts:
                losses += part.loss
                penalties += part.penalty
                correct += part.correct
        self._report(epoch, losses / len(order), penalties / len(order), correct / len(order))

    def _loss(self, network: PhysicalNetwork, batch: Tensor) -> tuple[Tensor, _Sums]:
        """Return the mean loss to be minimised over some samples, and the sums for the metric."""
        labels = self.labels[batch]
        logits = network(self.features[batch])
        loss = nn.functional.cross_entropy(logits, labels)
        penalty = network.penalty
        return loss + _PENALTY * penalty, _Sums(
            loss=float(loss.detach()) * len(batch),
            penalty=float(penalty.detach()) * len(batch),
            correct=int((logits.argmax(1) == labels).sum()),
        )

    def _report(self, epoch: int, loss: float, penalty: float, accuracy: float) -> None:
        refit = self.parts.refit
        metric = EpochMetric(
            epoch=epoch + 1,
            loss=loss,
            accuracy=accuracy,
            penalty=penalty,
            rows=self.device.rows,
            seconds=time.perf_counter() - self.start,
            refits_accepted=refit.accepted if refit else 0,
            refits_rolled_back=refit.rolled_back if refit else 0,
        )
        self.curve.append(metric)
        if self.on_metric is not None:
            self.on_metric(metric)

    def _test(self) -> TrainResult:
        """Test on the device at the age it has after training with it, whatever the method."""
        test = torch.from_numpy(self.split.test_idx)
        twin_accuracy = None
        if self.device.rows == 0:
            self.network.set_measure(self.twin)
            twin_accuracy = self._accuracy(self._predict(test), test)
        tester = self.apparatus.open_device(self.config.seed, self._planned_rows())
        self.network.set_measure(tester)
        predicted = self._predict(test)
        spectrum = self._spectrum(tester, test[:1])
        d = self.apparatus.description
        return TrainResult(
            method=self.config.method,
            seed=self.config.seed,
            classes=self.dataset.classes,
            test_accuracy=self._accuracy(predicted, test),
            twin_accuracy=twin_accuracy,
            baseline=logistic_regression(self.dataset, self.split),
            confusion=self._confusion(predicted, test),
            curve=self.curve,
            micro_batches=self.pipeline.micro_batches,
            rows=self.device.rows,
            test_rows=tester.rows,
            seconds=time.perf_counter() - self.start,
            instrument_hours=self.device.rows * d.row_time_s / 3600,
            spectrum=spectrum,
            twin_digest=self.twin.digest(),
            network_state=self.network.state_dict(),
            twin_state=self.twin.state_dict(),
        )

    def _planned_rows(self) -> int:
        """Return the rows that a run on the device measures before its test."""
        return _training_samples(self.config, self.split) * self.config.network.layers

    @torch.no_grad()
    def _predict(self, rows: Tensor) -> Tensor:
        parts = [self.network(self.features[b]).argmax(1) for b in rows.split(_EVALUATION_ROWS)]
        return torch.cat(parts)

    def _accuracy(self, predicted: Tensor, rows: Tensor) -> float:
        return float((predicted == self.labels[rows]).double().mean())

    def _confusion(self, predicted: Tensor, rows: Tensor) -> list[list[int]]:
        table = np.zeros((len(self.dataset.classes),) * 2, dtype=int)
        np.add.at(table, (self.labels[rows].numpy(), predicted.numpy()), 1)
        return table.tolist()

    @torch.no_grad()
    def _spectrum(self, tester: DeviceMeasure, row: Tensor) -> dict[str, list[float]]:
        """Return the last layer's measured and predicted output for one sample, normalised."""
        seen: list[tuple[Tensor, Tensor, Tensor]] = []

        def remember(x: Tensor, theta: Tensor) -> Tensor:
            y = tester(x, theta)
            seen.append((x, theta, y))
            return y

        self.network.set_measure(remember)
        self.network(self.features[row])
        x, theta, y = seen[-1]
        return {"measured": y[0].tolist(), "twin": self.twin(x, theta)[0].tolist()}

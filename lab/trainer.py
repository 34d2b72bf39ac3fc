"""Train one network with one method on one task: plain blocking PyTorch.

Runs away from any event loop; what it measures with is handed in, so that the same code serves the
service's scheduler, a notebook and a test.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from lab.apparatus import Apparatus
from lab.baselines import data_digest, logistic_regression
from lab.batches import Batches
from lab.budget import OUTPUT_SAMPLES, SHOWN, budget, rows_to_measure, split_for
from lab.checkpoints import Checkpoint, CheckpointFolder
from lab.config import TWIN_FREE_METHODS, TrainConfig
from lab.continuing import changes, comparable, refuse_passed, set_rates, told
from lab.controls import freeze, refit_output
from lab.datasets import Dataset
from lab.errors import Stopped
from lab.evaluation import Shown, Witness, accuracy, confusion, predict, share, spread_accuracy
from lab.labels import network_features
from lab.measure import DeviceMeasure
from lab.methods import MethodParts, choose_method
from lab.micro_batches import AutoMicroBatches
from lab.models import PhysicalNetwork, build_network
from lab.onlookers import Event, Onlookers
from lab.optimiser import optimiser_for, schedule_for
from lab.pipeline import Pipeline
from lab.progress import Progress
from lab.rules.base import Objective, Rule
from lab.rules.choose import choose_rule, refuse_impossible
from lab.snapshots import Snapshots
from lab.stateful import Stateful, TorchThreads
from lab.systems.base import never
from lab.train_result import EpochMetric, TrainResult
from lab.twins import FittedTwin
from twins.base import DigitalTwin, frozen

__all__ = ["rows_measured", "rows_to_measure", "train"]

_REPORTS_AN_EPOCH = 10  # where epochs are long
_LONG_EPOCH = 100  # steps


def train(
    config: TrainConfig,
    dataset: Dataset,
    fitted: FittedTwin,
    apparatus: Apparatus,
    *,
    on_metric: Callable[[EpochMetric], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    stop: Callable[[], bool] = never,
    checkpoints: CheckpointFolder | None = None,
) -> TrainResult:
    """Train and test; the fitted twin itself is not changed (a copy is).

    The test split is read once, at the end. Raises Stopped when `stop` says so (asked between
    steps), ConfigError where the method cannot train the network, and whatever measuring raises.
    on_event hears of audits and of a device that changes. With checkpoints it goes on from the
    newest one, as if it had never stopped, and tells only what comes later; CheckpointRefused if
    that is one of another run. Epochs, rows and rates of the config may differ from its
    (`lab.continuing`); ConfigError if they end before it.
    """
    run = _Run(config, dataset, fitted, apparatus, on_metric, on_event, stop, checkpoints)
    return run.execute()


def rows_measured(checkpoint: Checkpoint) -> int:
    """Return the hardware rows that a run had measured at a checkpoint, without its twin's."""
    state = checkpoint.state
    return int(state["device"]["next"] + sum(state["onlookers"]["rows"].values()))


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        fitted: FittedTwin,
        apparatus: Apparatus,
        on_metric: Callable[[EpochMetric], None] | None,
        on_event: Callable[[Event], None] | None,
        stop: Callable[[], bool],
        checkpoints: CheckpointFolder | None,
    ) -> None:
        refuse_impossible(config)
        self.config = config
        self.dataset = dataset
        self.fitted = fitted
        self.apparatus = apparatus
        self.on_metric = on_metric
        self.stop = stop
        self.split = split_for(config, dataset)
        self.budget = budget(config, self.split)
        self.features = network_features(config, dataset)
        self.labels = torch.from_numpy(dataset.labels).long()
        self.twin: DigitalTwin = frozen(deepcopy(fitted.twin))
        self.device = apparatus.open_device(config.seed, 0)
        self.parts: MethodParts = choose_method(
            config,
            self.device,
            self.twin,
            twin_error=fitted.random.normalised,
            open_oracle=apparatus.open_oracle,
        )
        self.network: PhysicalNetwork = self._build()
        self.pipeline = self._open_pipeline()
        self.rule: Rule = choose_rule(config, self.network, self.pipeline, self._objective())
        self.optimiser = optimiser_for(config, self.network)
        self.schedule = schedule_for(self.optimiser, self.budget.steps, config.warmup)
        self.batches = Batches(torch.from_numpy(self.split.train_idx), config.batch, config.seed)
        self.onlookers = Onlookers(
            config,
            apparatus,
            self.device,
            self.twin,
            steps=self.budget.steps,
            refit=self.parts.refit,
            features=self.features,
            labels=self.labels,
            split=self.split,
            tested_by=self._tested_by,
            on_event=on_event,
        )
        twin_free = config.method in TWIN_FREE_METHODS
        self.progress = Progress({"twin": 0 if twin_free else fitted.hardware_rows})
        self.snapshots = Snapshots(
            self._stateful(),
            {} if checkpoints is None else self._about(),
            checkpoints,
            config.checkpoint_s,
            comparable=comparable,
        )

    def _build(self) -> PhysicalNetwork:
        d = self.apparatus.description
        network = build_network(
            self.parts.measure,
            self.parts.differentiate,
            self.config.network,
            features=self.features.shape[1],
            x_size=d.x.shape[0],
            theta_size=d.theta.shape[0],
            y_size=d.y.shape[0],
            classes=len(self.dataset.classes),
            seed=self.config.seed,
        )
        for layer in network.layers:
            layer.clamped = self.config.control != "identity"
        return network

    def _open_pipeline(self) -> Pipeline[PhysicalNetwork]:
        number: int | AutoMicroBatches
        if self.config.micro_batches == "auto":
            number = AutoMicroBatches(self.device.hardware_s, self.device.description.row_time_s)
        else:
            number = self.config.micro_batches
        return Pipeline(self.network, self.parts.share, number, self.device.cancel)

    def _stateful(self) -> dict[str, Stateful]:
        """Return everything that the rest of the run depends on and its config does not give."""
        return {
            "threads": TorchThreads(),
            "network": self.network,
            "twin": self.twin,
            "device": self.device,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "batches": self.batches,
            "rule": self.rule,
            "pipeline": self.pipeline,
            "onlookers": self.onlookers,
            "progress": self.progress,
            **self.parts.stateful(),
        }

    def _about(self) -> dict[str, Any]:
        """Return what must be the same for this run to go on from a checkpoint."""
        return {
            "config": told(self.config),
            "data": data_digest(self.dataset, self.split).hex(),
            "twin": self.fitted.twin.digest(),
        }

    def execute(self) -> TrainResult:
        try:
            with _own_threads(), self.pipeline:
                self._freeze()
                known = self.snapshots.go_on()
                if known is None:
                    self._initialise()
                else:
                    self._take_changes(known)
                self._train()
            return self._test()
        except BaseException:
            self.snapshots.write()
            raise

    def _initialise(self) -> None:
        rows = torch.from_numpy(self.split.train_idx)
        self.network.initialise(self.features[rows[: self.config.initial_rows]])
        self.progress.ledger["initialisation"] = self.device.rows

    def _take_changes(self, known: Checkpoint) -> None:
        """Go on with other epochs, rows or rates than the run had at its checkpoint."""
        taken, steps = self.batches.given, self.budget.steps
        if changes(known.about, self.config):
            refuse_passed(self.config, taken, steps)
            optimiser, schedule = self.optimiser, self.schedule
            set_rates(optimiser, schedule, self.config, self.network, steps=steps, taken=taken)

    def _freeze(self) -> None:
        if self.config.control == "physics_only":
            freeze(self.network, self.network.digital_parameters())
        if self.config.control == "digital_only":
            freeze(self.network, self.network.physical_parameters())

    def _train(self) -> None:
        an_epoch = self.batches.an_epoch
        report_every = an_epoch
        if an_epoch > _LONG_EPOCH:
            report_every = math.ceil(an_epoch / _REPORTS_AN_EPOCH)
        self.snapshots.between_steps(self.batches.given)
        while self.batches.given < self.budget.steps:
            self._refuse_to_go_on()
            self._step()
            step = self.batches.given
            at_end = step % an_epoch == 0 or step == self.budget.steps
            if at_end or (step % an_epoch) % report_every == 0:
                self._report(step)
            self.onlookers.after(step, self.network)
            self.snapshots.between_steps(step)
        ledger = self.progress.ledger
        ledger["training"] = self.device.rows - ledger["initialisation"]

    def _refuse_to_go_on(self) -> None:
        if self.stop():
            self.snapshots.copy(self.batches.given)
            epoch = self.batches.given // self.batches.an_epoch + 1
            raise Stopped(f"training stopped in epoch {epoch} of {self.config.epochs}")

    def _step(self) -> None:
        batch = self.batches.next()
        self.optimiser.zero_grad()
        self.progress.saw(self.rule.step(batch), len(batch))
        self.optimiser.step()
        self.schedule.step()
        if self.parts.refit is not None:
            self.parts.refit.step()

    def _objective(self) -> Objective:
        classes = len(self.dataset.classes)
        return Objective(self.features, self.labels, classes, self.config.penalty)

    def _report(self, step: int) -> None:
        refit = self.parts.refit
        metric = self.progress.report(
            epoch=math.ceil(step / self.batches.an_epoch),
            step=step,
            of=self.budget.steps,
            rows=self.device.rows,
            refits_accepted=refit.accepted if refit else 0,
            refits_rolled_back=refit.rolled_back if refit else 0,
        )
        if self.on_metric is not None:
            self.on_metric(metric)

    def _tested_by(self, device: DeviceMeasure) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what tests: the device, unless a control has put something in its place."""
        if self.config.control in ("identity", "identity_clamped"):
            return self.parts.measure
        return device

    def _test(self) -> TrainResult:
        """Test on the device at the age it has after training with it, whatever the method."""
        test = torch.from_numpy(self.split.test_idx)
        features, labels = self.features[test], self.labels[test]
        twin_accuracy = None
        if self.device.rows == 0 and self.parts.measure is not self._tested_by(self.device):
            self.network.set_measure(self.twin)
            twin_accuracy = accuracy(self.network, features, labels)
        tester = self.apparatus.open_device(self.config.seed, self.budget.planned)
        measure = self._tested_by(tester)
        self.network.set_measure(measure)
        if self.config.control == "output_refit":
            self._refit_output()
            self.progress.ledger["output_refit"] = tester.rows
        tested_from = tester.rows
        predicted = predict(self.network, features)
        shown = self._show(tester, features[:SHOWN])
        spread = self._spread_accuracy(tester, features, labels)
        self.progress.ledger["test"] = tester.rows - tested_from
        d = self.apparatus.description
        return TrainResult(
            method=self.config.method,
            control=self.config.control,
            seed=self.config.seed,
            classes=self.dataset.classes,
            test_accuracy=share(predicted, labels),
            twin_accuracy=twin_accuracy,
            spread_accuracy=spread,
            baseline=logistic_regression(self.dataset, self.split),
            confusion=confusion(predicted, labels, len(self.dataset.classes)),
            curve=self.progress.curve,
            checks=self.onlookers.checks,
            audits=self.onlookers.audits,
            drifts=self.onlookers.drifts,
            micro_batches=self.pipeline.micro_batches,
            rows=self.device.rows,
            test_rows=self.progress.ledger["test"],
            ledger=self.progress.ledger | self.onlookers.rows,
            path=self.config.path,
            train_images=len(self.split.train_idx),
            clamped_fraction=shown.clamped_fraction,
            twin_error_task=shown.twin_error,
            seconds=self.progress.seconds,
            instrument_hours=self.device.rows * d.row_time_s / 3600,
            spectrum=shown.spectrum,
            twin_digest=self.twin.digest(),
            network_state=self.network.state_dict(),
            twin_state=self.twin.state_dict(),
        )

    def _show(self, tester: DeviceMeasure, features: Tensor) -> Shown:
        if self._tested_by(tester) is not tester:
            return Shown(None, None, {"measured": [], "twin": []})
        return Witness(tester, self.twin).look(self.network, features, tester)

    def _spread_accuracy(
        self, tester: DeviceMeasure, features: Tensor, labels: Tensor
    ) -> float | None:
        span_s = self.config.test_span_s
        if not span_s or self._tested_by(tester) is not tester:
            return None
        return spread_accuracy(self.network, tester, features, labels, span_s=span_s)

    def _refit_output(self) -> None:
        rows = torch.from_numpy(self.split.train_idx)
        generator = torch.Generator().manual_seed(self.config.seed)
        pick = rows[torch.randperm(len(rows), generator=generator)[:OUTPUT_SAMPLES]]
        refit_output(self.network, self.features[pick], self.labels[pick], seed=self.config.seed)


@contextmanager
def _own_threads() -> Iterator[None]:
    """Leave the calling thread's number of torch threads as it was."""
    number = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(number)

"""Eight simulated hours on a drifting bench: a network that is tended beside one left alone.

    python tests/experiments/drift_day.py [--json] [--quick] [--seeds N] [--hours H] [--workers N]
                                          [--holdout validation] [--cache FOLDER]

The default optics bench with `drift_per_hour` from the end of training on. Each seed trains on the
vowels (pat-refit, 60 epochs, twin of 300 rows). Then, on one simulated time line: sentinels look
every 5 minutes; after a drift event a short fine-tuning with refit on the training rows follows, as
long as tending (looks, references and fine-tuning together) stays within 5 % of the training's rows
an hour; every 30 minutes the network is evaluated on the held-out rows. The network left alone is
evaluated at the same times. With `--holdout validation`
training and fine-tuning have no validation rows and no test row is read: choose settings so. The
present ones come from a coarse screen on validation rows and are not settled.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.config import TrainConfig, load_bench
from lab.datasets import Dataset, Split, load, split
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork, brightness_free, build_network
from lab.pat import Measure
from lab.refit import OnlineRefit, RefitSettings
from lab.rigs import with_rigs
from lab.sentinels import DriftEvent, Sentinels, SentinelSettings, reference_rows
from lab.tending import TuneSettings, fine_tune, tuner
from lab.trainer import rows_to_measure, train
from lab.twins import fit_stream, fit_system_twin
from twins.base import DigitalTwin, frozen

BENCH = Path(__file__).resolve().parents[2] / "bench.toml"
LOOK_S = 300.0
EVALUATION_S = 1800.0
ROWS_SHARE = 0.05  # of the training's rows, per hour


@dataclass(frozen=True)
class Day:
    """One seed's day. hours: after the end of training; drift: share of the ranges per hour."""

    seed: int
    holdout: str = "test"
    epochs: int = 60
    hours: float = 8.0
    drift: float = 0.05
    cache: str | None = None
    tune: TuneSettings = field(
        default_factory=lambda: TuneSettings(steps=6, rate_theta=0.006, rate_digital=0.01)
    )
    watch: SentinelSettings = field(default_factory=SentinelSettings)
    refit: RefitSettings = field(default_factory=lambda: RefitSettings(batch=64, memory=30))
    random_rows: int = 2

    def config(self) -> TrainConfig:
        """Return the training config."""
        return TrainConfig.model_validate(
            {"seed": self.seed, "holdout": self.holdout, "epochs": self.epochs, "micro_batches": 1}
        )


@dataclass
class Record:
    """What a day was like: accuracies 0 to 1 at `hours`, rows of tending per hour, events."""

    hours: list[float] = field(default_factory=list)
    tended: list[float] = field(default_factory=list)
    untouched: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    untouched_losses: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    allowed_rows: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)
    refits_accepted: int = 0
    refits_rolled_back: int = 0


class Bed:
    """A trained network on the drifting bench, with the device at the end of training."""

    def __init__(self, day: Day, data: Dataset, parts: Split, apparatus: Apparatus) -> None:
        self.day = day
        self.apparatus = apparatus
        self.features = torch.from_numpy(data.features).float()
        self.labels = torch.from_numpy(data.labels).long()
        self.train_rows = torch.from_numpy(parts.train_idx)
        self.held_out = torch.from_numpy(parts.test_idx)
        self.classes = len(data.classes)

    def network(
        self, measure: Measure, twin: DigitalTwin, state: dict[str, Any]
    ) -> PhysicalNetwork:
        """Return a copy of the trained network."""
        d = self.apparatus.description
        network = build_network(
            measure,
            twin,
            self.day.config().network,
            x_size=d.x.shape[0],
            theta_size=d.theta.shape[0],
            y_size=d.y.shape[0],
            classes=self.classes,
            seed=self.day.seed,
        )
        network.load_state_dict(state)
        return network

    @torch.no_grad()
    def evaluate(self, network: PhysicalNetwork) -> tuple[float, float]:
        """Return accuracy and cross-entropy on the held-out rows."""
        logits = network(self.features[self.held_out])
        labels = self.labels[self.held_out]
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return float((logits.argmax(1) == labels).double().mean()), float(loss)


def trained(day: Day) -> dict[str, Any]:
    """Train, or read what was trained before; the drift begins later, so it has no part in this."""
    kept = (
        None if day.cache is None else Path(day.cache) / f"{day.holdout}-{day.seed}-{day.epochs}.pt"
    )
    if kept is not None and kept.exists():
        state: dict[str, Any] = torch.load(kept)
        return state
    config = day.config()
    with open_bench(BENCH) as bench:
        apparatus = open_apparatus(bench, config.system)
        device = apparatus.open_device(fit_stream(config.twin.seed), 0)
        fitted = fit_system_twin(config.twin, bench.new_twin(config.system), device)
        result = train(config, load(config.task), fitted, apparatus)
    state = {"network": result.network_state, "twin": result.twin_state, "rows": result.rows}
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, kept)
    return state


def live(day: Day) -> Record:
    """Train, then live through the day."""
    torch.set_num_threads(1)
    config = day.config()
    data = load(config.task)
    parts = split(data, config.split, config.seed)
    if day.holdout == "validation":
        parts = parts.for_choices()
    before = trained(day)
    layers = config.network.layers
    end = rows_to_measure(config, data) - (len(parts.test_idx) + 1) * layers
    plain = load_bench(BENCH)
    with open_bench(plain) as bench:
        row_s = open_apparatus(bench, config.system).description.row_time_s
    rigs = with_rigs(plain, drift_per_hour=day.drift, drift_from_s=end * row_s)
    with open_bench(rigs) as bench:
        bed = Bed(day, data, parts, open_apparatus(bench, config.system))
        twin = bench.new_twin(config.system)
        twin.load_state_dict(before["twin"])
        return _tend(bed, frozen(twin), before, end)


def _tend(bed: Bed, twin: DigitalTwin, before: dict[str, Any], end: int) -> Record:
    day, record = bed.day, Record()
    device = bed.apparatus.open_device(day.seed, end)
    shadow = bed.apparatus.open_device(day.seed + 1000, end)  # the network left alone
    refit = OnlineRefit(twin, device, seed=day.seed, settings=day.refit)
    network = bed.network(device, twin, before["network"])
    untouched = bed.network(shadow, twin, before["network"])
    keeper = Keeper(bed, network, twin, refit, device, before["rows"] * ROWS_SHARE)
    start_s = device.time_s
    record.allowed_rows = before["rows"] * ROWS_SHARE
    for tick in range(round(day.hours * 3600 / LOOK_S) + 1):
        now_s = tick * LOOK_S
        _wait_until(device, start_s + now_s)
        if now_s % EVALUATION_S == 0:
            _wait_until(shadow, device.time_s)
            for net, accuracies, losses in (
                (network, record.tended, record.losses),
                (untouched, record.untouched, record.untouched_losses),
            ):
                accuracy, loss = bed.evaluate(net)
                print(f"seed {day.seed} {now_s / 3600:.1f} h {accuracy:.3f}", file=sys.stderr)
                accuracies.append(accuracy)
                losses.append(loss)
            record.hours.append(now_s / 3600)
        if now_s < day.hours * 3600:
            keeper.tick(now_s)
    record.rows = keeper.rows_by_hour
    record.events = keeper.events
    record.refits_accepted, record.refits_rolled_back = refit.accepted, refit.rolled_back
    return record


def _wait_until(device: DeviceMeasure, time_s: float) -> None:
    device.wait(max(0.0, time_s - device.time_s))


class Keeper:
    """Watches one network and fine-tunes it after a drift event, within an allowance of rows."""

    def __init__(
        self,
        bed: Bed,
        network: PhysicalNetwork,
        twin: DigitalTwin,
        refit: OnlineRefit,
        device: DeviceMeasure,
        allowed_rows: float,
    ) -> None:
        self.bed, self.network, self.twin = bed, network, twin
        self.refit, self.device = refit, device
        self.allowed_rows = allowed_rows
        self.rows_by_hour: list[int] = []
        self.events: list[dict[str, Any]] = []
        self.optimiser = tuner(network, bed.day.tune)
        self.generator = torch.Generator().manual_seed(bed.day.seed)
        self.start_s = device.time_s
        self.sentinels = self._new_sentinels()
        self.armed = False
        self.pending: DriftEvent | None = None

    def _new_sentinels(self) -> Sentinels:
        """Watch random rows, and what each layer gets for one training sample."""
        seen: list[tuple[Tensor, Tensor]] = []

        def remember(x: Tensor, theta: Tensor) -> Tensor:
            seen.append((x, theta))
            return self.device(x, theta)

        self.network.set_measure(remember)
        with torch.no_grad():
            self.network(self.bed.features[self.bed.train_rows[:1]])
        self.network.set_measure(self.device)
        d = self.bed.apparatus.description
        task = (torch.cat([x for x, _ in seen]), torch.cat([t for _, t in seen]))
        return Sentinels(
            self.device,
            self.twin,
            reference_rows(
                d.x.shape[0], d.theta.shape[0], self.bed.day.random_rows, seed=0, task=task
            ),
            clock=lambda: self.device.time_s - self.start_s,
            read=brightness_free,
            settings=self.bed.day.watch,
        )

    def tick(self, now_s: float) -> None:
        """Look, and fine-tune if something was seen and this hour's rows still allow it."""
        if int(now_s // 3600) == len(self.rows_by_hour):
            self.rows_by_hour.append(0)
        self._count(self._look)
        if self.pending is None or self.rows_by_hour[-1] + self._cost() > self.allowed_rows:
            return
        event, self.pending = self.pending, None
        losses: list[float] = []
        self._count(lambda: losses.extend(self._tune()))
        tuned_s = self.device.time_s - self.start_s
        self.events.append({**asdict(event), "tuned_s": tuned_s, "loss": fmean(losses)})
        self._count(self.sentinels.arm)

    def _cost(self) -> int:
        """Return the rows of a fine-tuning, of arming after it, and of an hour's looks."""
        tune, layers = self.bed.day.tune, len(self.network.layers)
        looked_at = self.bed.day.random_rows + layers
        looks = 1 + self.bed.day.watch.looks + round(3600 / LOOK_S)
        return tune.steps * tune.batch * layers + looks * looked_at

    def _count(self, act: Callable[[], object]) -> None:
        before = self.device.rows
        act()
        self.rows_by_hour[-1] += self.device.rows - before

    def _look(self) -> None:
        if not self.armed:
            self.sentinels.arm()
            self.armed = True
            return
        event = self.sentinels.look()
        if self.pending is None:
            self.pending = event

    def _tune(self) -> list[float]:
        self.network.set_measure(self.refit.measure)
        rows = self.bed.train_rows
        losses = fine_tune(
            self.network,
            self.refit,
            self.bed.features[rows],
            self.bed.labels[rows],
            self.optimiser,
            self.bed.day.tune,
            generator=self.generator,
        )
        self.network.set_measure(self.device)
        return losses


def main() -> None:
    """Print the days."""
    parser = argparse.ArgumentParser(description="Eight simulated hours on a drifting bench.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, 6 epochs, one hour")
    parser.add_argument("--seeds", type=int, default=3, help="seeds, from 0")
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--holdout", default="test", choices=["test", "validation"])
    parser.add_argument("--cache", help="a folder that keeps the trained networks")
    options = parser.parse_args()
    epochs, hours = (6, 1.0) if options.quick else (60, options.hours)
    days = [
        Day(seed, options.holdout, epochs, hours, cache=options.cache)
        for seed in range(1 if options.quick else options.seeds)
    ]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        records = list(pool.map(live, days))
    if options.json:
        print(json.dumps([asdict(r) for r in records]))
        return
    print_table(records)


def points_lost(series: list[list[float]], i: int) -> float:
    """Return the mean loss of accuracy since hour 0 at evaluation i, points."""
    return 100 * (fmean(s[0] for s in series) - fmean(s[i] for s in series))


def print_table(records: list[Record]) -> None:
    """Print accuracies by the hour, what tending cost, and the events."""
    print("hours   tended, % (seeds)   points lost   untouched, % (seeds)   points lost")
    both = [[r.tended for r in records], [r.untouched for r in records]]
    for i, hour in enumerate(records[0].hours):
        cells = []
        for series in both:
            now = [100 * s[i] for s in series]
            each = " ".join(f"{a:5.1f}" for a in now)
            cells.append(f"{fmean(now):5.1f} ({each})  {points_lost(series, i):5.1f}")
        print(f"{hour:5.1f}   {'   '.join(cells)}")
    worst = [max(points_lost(s, i) for i in range(len(records[0].hours))) for s in both]
    single = [max(100 * (s[0] - min(s)) for s in series) for series in both]
    for name, mean, one in zip(("tended", "untouched"), worst, single, strict=True):
        print(f"{name}: at most {mean:.1f} points lost in the mean, {one:.1f} in one seed")
    for seed, r in enumerate(records):
        print(
            f"seed {seed}: rows of tending by hour {r.rows}, allowed {r.allowed_rows:.0f}; "
            f"refits accepted {r.refits_accepted}, rolled back {r.refits_rolled_back}"
        )
        for e in r.events:
            print(
                f"  {e['time_s'] / 60:5.0f} min: {e['statistic']} {e['value']:.1f}, look "
                f"{e['looks']}; tuned until {e['tuned_s'] / 60:.0f} min, loss {e['loss']:.3f}"
            )


if __name__ == "__main__":
    main()

"""Eight simulated hours on a drifting bench: a network that is tended beside one left alone.

    python tests/experiments/drift_day.py [--json] [--quick] [--seeds N] [--hours H]
                                          [--holdout validation] [--still] [--cache FOLDER]

The default optics bench with `drift_per_hour` from the end of training on. Each seed trains on the
vowels (pat-refit, 60 epochs, twin of 300 rows). Then, on one simulated time line: sentinels look
every 5 minutes; a drift event is followed by a rematch and a short fine-tuning with refit on
training rows, as long as tending (looks, references, rematches and fine-tuning together) stays
within 5 % of the training's rows an hour. Every 30 minutes the held-out rows are measured
REPEATS times, on a noise stream aside and at the same simulated time, and so they are by the
network left alone. `--holdout validation`: training and fine-tuning have no validation rows, which
are judged on, and no test row is read; the settings were chosen so. `--still`: nothing drifts, to
see what the accuracy scatters by itself.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.budget import budget, split_for
from lab.config import TrainConfig
from lab.datasets import load
from lab.keeping import Keeper
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork, build_network
from lab.plant_run import plant_run
from lab.rigs import with_rigs
from lab.trainer import train
from lab.twins import fit_stream, fit_system_twin
from twins.base import DigitalTwin, frozen

BENCH = Path(__file__).resolve().parents[2] / "bench.toml"
LOOK_S = 300.0
EVALUATION_S = 1800.0
ROWS_SHARE = 0.05  # of the training's rows, per hour
REPEATS = 5  # measurements of an evaluation
_ASIDE = 1 << 30  # noise streams of evaluations


@dataclass(frozen=True)
class Day:
    """One seed's day. hours: after the end of training; drift: share of the ranges per hour."""

    seed: int
    holdout: str = "test"
    epochs: int = 60
    hours: float = 8.0
    drift: float = 0.05
    cache: str | None = None

    def config(self) -> TrainConfig:
        """Return the training config."""
        return TrainConfig.model_validate(
            {
                "seed": self.seed,
                "holdout": self.holdout,
                "epochs": self.epochs,
                "micro_batches": 1,
                "path": "plant",
                "audit": False,
                "sentinels": False,
            }
        )


@dataclass
class Record:
    """What a day was like: accuracies 0 to 1, rows of tending per hour, events (minute, why)."""

    hours: list[float] = field(default_factory=list)
    tended: list[float] = field(default_factory=list)
    untouched: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    allowed_rows: float = 0.0
    events: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Bed:
    """The drifting bench at the end of training, and what was trained on it."""

    day: Day
    apparatus: Apparatus
    twin: DigitalTwin
    state: dict[str, Any]
    features: Tensor
    labels: Tensor
    train_rows: Tensor
    held_out: Tensor

    def device(self, stream: int) -> DeviceMeasure:
        """Return the device at the end of training, on a noise stream."""
        return self.apparatus.open_device(stream, self.state["rows"])

    def network(self, device: DeviceMeasure) -> PhysicalNetwork:
        """Return a copy of the trained network."""
        d = self.apparatus.description
        network = build_network(
            device,
            self.twin,
            self.day.config().network,
            features=self.features.shape[1],
            x_size=d.x.shape[0],
            theta_size=d.theta.shape[0],
            y_size=d.y.shape[0],
            classes=int(self.labels.max()) + 1,
            seed=self.day.seed,
        )
        network.load_state_dict(self.state["network"])
        return network

    @torch.no_grad()
    def accuracy(self, network: PhysicalNetwork, time_s: float) -> float:
        """Return the accuracy on the held-out rows at a time, mean of REPEATS noise streams."""
        shares = []
        for i in range(REPEATS):
            device = self.device(_ASIDE + REPEATS * self.day.seed + i)
            device.wait(time_s - device.time_s)
            network.set_measure(device)
            right = network(self.features[self.held_out]).argmax(1) == self.labels[self.held_out]
            shares.append(float(right.double().mean()))
        return fmean(shares)


def trained(day: Day) -> dict[str, Any]:
    """Train, or read what was trained before; the drift begins later, so it has no part in this."""
    kept = None
    if day.cache is not None:
        kept = Path(day.cache) / f"{day.holdout}-{day.seed}-{day.epochs}.pt"
        if kept.exists():
            return dict(torch.load(kept))
    config = day.config()
    with open_bench(BENCH) as bench:
        apparatus = open_apparatus(bench, config.system, plant_run(bench, config.system))
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
    config = day.config()
    data = load(config.task)
    parts = split_for(config, data)
    state = trained(day)
    plain = load_bench(BENCH)
    with open_bench(plain) as bench:
        row_s = bench.system(config.system).description.row_time_s
    from_s = budget(config, parts).planned * row_s
    with open_bench(with_rigs(plain, drift_per_hour=day.drift, drift_from_s=from_s)) as bench:
        twin = bench.new_twin(config.system)
        twin.load_state_dict(state["twin"])
        bed = Bed(
            day=day,
            apparatus=open_apparatus(bench, config.system, plant_run(bench, config.system)),
            twin=frozen(twin),
            state=state,
            features=torch.from_numpy(data.features).float(),
            labels=torch.from_numpy(data.labels).long(),
            train_rows=torch.from_numpy(parts.train_idx),
            held_out=torch.from_numpy(parts.test_idx),
        )
        return _tend(bed)


def _tend(bed: Bed) -> Record:
    day, allowed_rows = bed.day, bed.state["rows"] * ROWS_SHARE
    device = bed.device(day.seed)
    tended, untouched = bed.network(device), bed.network(device)
    start_s, record = device.time_s, Record(allowed_rows=allowed_rows)
    features, labels = bed.features[bed.train_rows], bed.labels[bed.train_rows]
    at_start = bed.accuracy(untouched, start_s)  # before the keeper's first rows take their time
    keeper = Keeper(tended, bed.twin, device, features, labels, seed=day.seed)
    record.rows.append(device.rows)
    for tick in range(round(day.hours * 3600 / LOOK_S) + 1):
        now_s = tick * LOOK_S
        device.wait(max(0.0, start_s + now_s - device.time_s))
        if now_s % EVALUATION_S == 0:
            record.hours.append(now_s / 3600)
            for network, shares in ((tended, record.tended), (untouched, record.untouched)):
                shares.append(bed.accuracy(network, device.time_s) if tick else at_start)
        if 0 < now_s < day.hours * 3600:
            hour, before = int(now_s // 3600), device.rows
            record.rows += [0] * (hour + 1 - len(record.rows))
            later_looks = round(((hour + 1) * 3600 - now_s) / LOOK_S) - 1
            left = allowed_rows - record.rows[hour] - later_looks * keeper.rows_a_look
            event = keeper.look(left)
            record.rows[hour] += device.rows - before
            if event is not None:
                minutes = round((event.time_s - start_s) / 60)
                record.events.append((minutes, event.statistic))
    return record


def points_lost(series: list[list[float]], i: int) -> float:
    """Return the mean loss of accuracy since hour 0 at evaluation i, points."""
    return 100 * (fmean(s[0] for s in series) - fmean(s[i] for s in series))


def print_table(records: list[Record]) -> None:
    """Print accuracies by the half hour, what tending cost, and the events."""
    print("hours   tended, % (seeds)   points lost   untouched, % (seeds)   points lost")
    both = {"tended": [r.tended for r in records], "untouched": [r.untouched for r in records]}
    evaluations = range(1, len(records[0].hours))
    for i, hour in enumerate(records[0].hours):
        cells = []
        for series in both.values():
            each = " ".join(f"{100 * s[i]:5.1f}" for s in series)
            now = 100 * fmean(s[i] for s in series)
            cells.append(f"{now:5.1f} ({each})  {points_lost(series, i):5.1f}")
        print(f"{hour:5.1f}   {'   '.join(cells)}")
    for name, series in both.items():
        lost = [points_lost(series, i) for i in evaluations]
        print(f"{name}: {max(lost):.1f} points lost at worst, {fmean(lost):.1f} on average")
    for seed, r in enumerate(records):
        print(
            f"seed {seed}: {len(r.events)} drift events; rows of tending by hour {r.rows}, "
            f"{fmean(r.rows):.0f} on average, allowed {r.allowed_rows:.0f}"
        )


def main() -> None:
    """Live the days, one after the other, and print them."""
    parser = argparse.ArgumentParser(description="Eight simulated hours on a drifting bench.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, two hours")
    parser.add_argument("--seeds", type=int, default=3, help="seeds, from 0")
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--holdout", default="test", choices=["test", "validation"])
    parser.add_argument("--still", action="store_true", help="no drift")
    parser.add_argument("--cache", help="a folder that keeps the trained networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, hours = (1, 2.0) if options.quick else (options.seeds, options.hours)
    drift = 0.0 if options.still else Day.drift
    records = []
    for seed in range(seeds):
        print(f"seed {seed}", file=sys.stderr)
        day = Day(seed, options.holdout, hours=hours, drift=drift, cache=options.cache)
        records.append(live(day))
    if options.json:
        print(json.dumps([asdict(r) for r in records]))
    else:
        print_table(records)


if __name__ == "__main__":
    main()

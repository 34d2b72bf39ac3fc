"""Is the gradient audit's interval honest, and how wide is it? On the simulated optics.

    python tests/experiments/audit_coverage.py [--json] [--audits N] [--layers N]
        [--kinds PROBESxSAMPLES ...]

A vowel network trains on the bench with `pat` and a twin fitted on 300 rows. At the start, after
20 and after 100 steps the gradient is audited on random batches; the truth is the cosine with the
gradient of `ideal`, the mean of eight measurements of the same batch, at the audited parameters.

Coverage: the share of audits whose 95 % interval holds the truth. Rows are measured on the opened
bench's plant (`lab.plant_run`), which gives the same numbers as driver and wire.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from lab.apparatus import open_apparatus
from lab.audit import PROBES, STEP, Audit, audit_gradient
from lab.auditing import SAMPLES
from lab.bench import Bench, open_bench
from lab.config import TwinConfig
from lab.datasets import load, split
from lab.measure import DeviceMeasure
from lab.models import PhysicalNetwork, build_network
from lab.network_config import NetworkConfig
from lab.plant_run import plant_run
from lab.twins import fit_stream, fit_system_twin

BENCH = Path(__file__).resolve().parents[2] / "bench.toml"
STOPS = (0, 20, 100)
TRUTHS = 8
KINDS = [f"{PROBES}x{SAMPLES}", f"{PROBES}x100", "128x64"]


@dataclass(frozen=True)
class Trial:
    """One audit beside the truth."""

    truth: float
    audit: Audit
    rows: int

    @property
    def covered(self) -> bool:
        return self.audit.low <= self.truth <= self.audit.high


class Lab:
    """A network on the bench, its twin, the truth, and the vowels."""

    def __init__(self, bench: Bench, layers: int, seed: int, twin_rows: int) -> None:
        apparatus = open_apparatus(bench, "optics", plant_run(bench, "optics"))
        d = apparatus.description
        self.device = apparatus.open_device(seed, 0)
        self.oracle = apparatus.open_oracle(self.device)
        self.twin = bench.new_twin("optics")
        if twin_rows:
            rows = apparatus.open_device(fit_stream(seed), 0)
            fit_system_twin(TwinConfig(rows=twin_rows, seed=seed), self.twin, rows)
        self.twin.requires_grad_(False).eval()
        vowels = load("vowels")
        self.features = torch.from_numpy(vowels.features).float()
        self.labels = torch.from_numpy(vowels.labels)
        self.train = torch.from_numpy(split(vowels, "random", seed).train_idx)
        self.generator = torch.Generator().manual_seed(seed)
        self.network: PhysicalNetwork = build_network(
            self.device,
            self.twin,
            NetworkConfig(layers=layers),
            features=self.features.shape[1],
            x_size=d.x.shape[0],
            theta_size=d.theta.shape[0],
            y_size=d.y.shape[0],
            classes=len(vowels.classes),
            seed=seed,
        )
        self.network.initialise(self.features[self.train])
        self.parameters = [
            *self.network.physical_parameters(),
            *self.network.digital_parameters(),
        ]
        self.optimiser = torch.optim.Adam(
            [
                {"params": self.network.physical_parameters(), "lr": 0.03},
                {"params": self.network.digital_parameters(), "lr": 0.05},
            ]
        )

    def draw(self, samples: int) -> Tensor:
        order = torch.randperm(len(self.train), generator=self.generator)
        return self.train[order[:samples]]

    def losses(self, batch: Tensor) -> Tensor:
        logits = self.network(self.features[batch])
        return nn.functional.cross_entropy(logits, self.labels[batch], reduction="none")

    def gradients(self, batch: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(self.losses(batch).mean(), self.parameters))

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.optimiser.zero_grad()
            loss = self.losses(self.draw(32)).mean() + 5 * self.network.penalty
            loss.backward()
            self.optimiser.step()

    def use(self, measure: DeviceMeasure, differentiate: nn.Module) -> None:
        for layer in self.network.layers:
            layer.set_physics(measure, differentiate)

    def try_audit(self, samples: int, probes: int) -> Trial:
        batch = self.draw(samples)
        self.use(self.device, self.oracle)
        truths = [self.gradients(batch) for _ in range(TRUTHS)]
        true = [torch.stack(parts).mean(0) for parts in zip(*truths, strict=True)]
        self.use(self.device, self.twin)
        gradients = self.gradients(batch)
        before = self.device.rows
        audit = audit_gradient(
            lambda: self.losses(batch),
            self.parameters,
            gradients,
            physical=self.network.physical_parameters(),
            probes=probes,
            generator=self.generator,
        )
        rows = self.device.rows - before
        return Trial(self._cosine(gradients, true, STEP), audit, rows)

    def _cosine(self, a: list[Tensor], b: list[Tensor], step: float) -> float:
        """Return the cosine over the entries that an audit moves."""
        clamped = {id(p) for p in self.network.physical_parameters()}
        inside = [
            torch.minimum(p, 1 - p) > step if id(p) in clamped else torch.ones_like(p) > 0
            for p in self.parameters
        ]
        flat = [torch.cat([t[m] for t, m in zip(g, inside, strict=True)]).double() for g in (a, b)]
        return float(nn.functional.cosine_similarity(flat[0], flat[1], dim=0))


def audit_along_training(lab: Lab, audits: int, samples: int, probes: int) -> Iterator[Trial]:
    """Yield audits, as many at every stop of a training run."""
    done = 0
    for stop in STOPS:
        lab.advance(stop - done)
        done = stop
        for _ in range(audits // len(STOPS) + (stop == STOPS[-1]) * (audits % len(STOPS))):
            trial = lab.try_audit(samples, probes)
            a, truth = trial.audit, trial.truth
            interval = f"{a.low:.3f} to {a.high:.3f}"
            print(f"step {stop}: {a.cosine:.3f} in {interval}, truth {truth:.3f}", file=sys.stderr)
            yield trial


def summarise(trials: Sequence[Trial], samples: int) -> dict[str, float]:
    """Return coverage, widths and costs."""
    audits = [t.audit for t in trials]
    errors = [t.audit.cosine - t.truth for t in trials]
    return {
        "audits": len(trials),
        "probes": audits[0].probes,
        "samples": samples,
        "lowest_truth": min(t.truth for t in trials),
        "highest_truth": max(t.truth for t in trials),
        "coverage": fmean(t.covered for t in trials),
        "within_0.1": fmean(abs(e) <= 0.1 for e in errors),
        "mean_error": fmean(errors),
        "mean_width": fmean(a.high - a.low for a in audits),
        "rows_per_audit": trials[0].rows,
        "sample_passes": audits[0].evaluations * samples,
        "share_of_gradient": fmean(a.share for a in audits),
    }


def main() -> None:
    """Print one line per kind of audit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--audits", type=int, default=50, help="of every kind")
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="probes x samples of an audit")
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for kind in options.kinds:
        probes, samples = map(int, kind.split("x"))
        with open_bench(BENCH) as bench:
            lab = Lab(bench, options.layers, 0, 300)
            trials = list(audit_along_training(lab, options.audits, samples, probes))
        results.append(summarise(trials, samples))
        if not options.json:
            print(_line(results[-1]), flush=True)
    if options.json:
        print(json.dumps(results))


def _line(r: dict[str, Any]) -> str:
    return (
        f"{r['probes']:4} probes, {r['samples']} samples: "
        f"truth {r['lowest_truth']:.2f} to {r['highest_truth']:.2f}, in the interval "
        f"{100 * r['coverage']:.0f} % of {r['audits']}, within 0.1 {100 * r['within_0.1']:.0f} %, "
        f"mean error {r['mean_error']:+.3f}, mean width {r['mean_width']:.2f}, "
        f"{r['rows_per_audit']} rows ({r['sample_passes']} passes of a sample)"
    )


if __name__ == "__main__":
    main()

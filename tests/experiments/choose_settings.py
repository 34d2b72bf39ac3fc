"""Choose the vowel network's settings without a look at the rows that its accuracy is reported on.

    python tests/experiments/choose_settings.py [--json] [--seeds N] [--workers N] [--epochs N]

For every reported seed on its own: each candidate trains (pat-refit, simulated bench, twin of 300
rows) on that seed's training rows without the validation rows, and is judged on the validation
rows. Then the winner is trained on all training rows and tested, once. A seed's test rows thus had
no part in that seed's choice, and the mean test accuracy of the winners is an honest estimate of
"choose, then train" on this task. Ties go to the candidate that stands first, the default.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from lab.apparatus import open_apparatus
from lab.bench import open_bench
from lab.config import TrainConfig
from lab.datasets import load
from lab.network_config import BrightnessFree, NetworkConfig, Rescale, Skip
from lab.trainer import train
from lab.twins import fit_stream, fit_system_twin

BENCH = Path(__file__).resolve().parents[2] / "bench.toml"


def network(spread: float = 0.2, skip: float = 0.3) -> dict[str, Any]:
    """Return the default network with other stages between its layers."""
    after = (BrightnessFree(), Rescale(spread=spread), Skip(share=skip))
    return {"network": NetworkConfig(after=after).model_dump()}


CANDIDATES: dict[str, dict[str, Any]] = {
    "default": {},
    "skip 0": network(skip=0.0),
    "skip 0.5": network(skip=0.5),
    "spread 0.1": network(spread=0.1),
    "spread 0.3": network(spread=0.3),
    "rates / 2": {"rate_theta": 0.015, "rate_digital": 0.025},
    "rates * 2": {"rate_theta": 0.06, "rate_digital": 0.1},
}


@dataclass(frozen=True)
class Trial:
    """One training run: a candidate, a seed, and what it is judged on."""

    candidate: str
    seed: int
    holdout: str
    epochs: int

    def config(self) -> TrainConfig:
        """Return its training config."""
        return TrainConfig.model_validate(
            {
                "seed": self.seed,
                "holdout": self.holdout,
                "epochs": self.epochs,
                **CANDIDATES[self.candidate],
            }
        )


def accuracy(trial: Trial) -> float:
    """Return the held-out accuracy of one run, 0 to 1, on a simulated bench of its own."""
    torch.set_num_threads(1)
    config = trial.config()
    with open_bench(BENCH) as bench:
        apparatus = open_apparatus(bench, config.system)
        fitted = fit_system_twin(
            config.twin,
            bench.new_twin(config.system),
            apparatus.open_device(fit_stream(config.twin.seed), 0),
        )
        result = train(config, load(config.task), fitted, apparatus).test_accuracy
    print(
        f"{trial.holdout:10} seed {trial.seed} {trial.candidate:10} {result:.3f}", file=sys.stderr
    )
    return result


def run_all(trials: Iterable[Trial], workers: int) -> dict[Trial, float]:
    """Return the accuracy of every trial."""
    trials = list(trials)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return dict(zip(trials, pool.map(accuracy, trials), strict=True))


def choose(seeds: int, epochs: int, workers: int) -> dict[str, Any]:
    """Return validation accuracies, choices and their test accuracies."""
    trials = [Trial(c, s, "validation", epochs) for s in range(seeds) for c in CANDIDATES]
    judged = run_all(trials, workers)
    validation = {
        c: [judged[Trial(c, s, "validation", epochs)] for s in range(seeds)] for c in CANDIDATES
    }
    # max keeps the first of equals
    chosen = [max(CANDIDATES, key=lambda c: validation[c][s]) for s in range(seeds)]
    finals = [Trial(c, s, "test", epochs) for s, c in enumerate(chosen)]
    tested = run_all(finals, workers)
    test = [tested[t] for t in finals]
    return {
        "epochs": epochs,
        "validation": {c: {"accuracy": a, "mean": fmean(a)} for c, a in validation.items()},
        "chosen": chosen,
        "test": {"accuracy": test, "mean": fmean(test)},
    }


def main() -> None:
    """Print the choice."""
    parser = argparse.ArgumentParser(description="Choose settings on validation rows.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, default=3, help="reported seeds, from 0")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    result = choose(options.seeds, options.epochs, options.workers)
    if options.json:
        print(json.dumps(result))
        return
    for candidate, judged in result["validation"].items():
        percent = ", ".join(f"{100 * a:.1f}" for a in judged["accuracy"])
        print(f"{candidate:12} {100 * judged['mean']:5.1f} %  ({percent})")
    for seed, candidate in enumerate(result["chosen"]):
        tested = 100 * result["test"]["accuracy"][seed]
        print(f"seed {seed}: {candidate}, {tested:.1f} % on its test rows")


if __name__ == "__main__":
    main()

"""What a training run costs: its samples, its steps and its hardware rows."""

import math
from dataclasses import dataclass

from lab.auditing import audit_every, rows_of_audit
from lab.config import DIGITAL_METHODS, Method, TrainConfig
from lab.datasets import Dataset, Split, split
from lab.rules import local, pepg, spsa

# Forward passes of a batch in one step, where it is not one.
FORWARDS: dict[Method, int] = {
    "spsa": 2 * spsa.PROBES,
    "pepg": 2 * pepg.PAIRS,
    "pat-sharpness": 2,
    "phyll": local.PASSES,
}
SHOWN = 100  # test samples by which the twin and the clamp are judged, measured once more
OUTPUT_SAMPLES = 5000  # training samples of the control `output_refit`, at most


def split_for(config: TrainConfig, dataset: Dataset) -> Split:
    """Return the rows that a run trains on, checks itself by and is tested on."""
    parts = split(
        dataset,
        config.split,
        config.seed,
        train_samples=config.train_images,
        test_samples=config.test_images,
    )
    if config.holdout == "validation":
        return parts.for_choices()
    if config.checks:
        return Split(parts.fit_idx, parts.validation_idx, parts.test_idx)
    return parts


@dataclass(frozen=True)
class Budget:
    """A run in numbers; rows are hardware rows.

    steps: training steps; initial, training, checks, audits, test: rows of these parts, 0 where a
    method does not measure; test: with what else is measured after the training. planned: rows
    before the test of a run that measures, whatever the method: the device's age at the test. Rows
    of sentinels are not foreseen.
    """

    steps: int
    initial: int
    training: int
    checks: int
    audits: int
    test: int
    planned: int


def budget(config: TrainConfig, parts: Split) -> Budget:
    """Return what a run that trains, checks and tests on these samples costs."""
    rows, samples = config.rows_a_sample, len(parts.train_idx)
    forwards = FORWARDS.get(config.method, 1)
    initial = min(samples, config.initial_rows) * rows
    steps = config.epochs * math.ceil(samples / config.batch)
    training = config.epochs * samples * rows * forwards
    if config.rows is not None:
        steps = max(1, config.rows // (min(config.batch, samples) * rows * forwards))
        training = samples_of(steps, samples, config.batch) * rows * forwards
    identity = config.control in ("identity", "identity_clamped")
    digital = config.method in DIGITAL_METHODS or identity
    every = audit_every(config)
    return Budget(
        steps=steps,
        initial=0 if digital else initial,
        training=0 if digital else training,
        checks=0 if identity else min(config.checks, steps) * len(parts.validation_idx) * rows,
        audits=0 if every is None else (steps - 1) // every * rows_of_audit(config),
        test=0 if identity else _test_samples(config, parts) * rows,
        planned=initial + training,
    )


def _test_samples(config: TrainConfig, parts: Split) -> int:
    """Return how many samples are measured after the training."""
    tested = len(parts.test_idx)
    samples = tested + min(tested, SHOWN)
    if config.test_span_s:
        samples += tested
    if config.control == "output_refit":
        samples += min(len(parts.train_idx), OUTPUT_SAMPLES)
    return samples


def samples_of(steps: int, samples: int, batch: int) -> int:
    """Return how many samples so many steps see; the last batch of an epoch may be smaller."""
    epochs, rest = divmod(steps, math.ceil(samples / batch))
    return epochs * samples + min(rest * batch, samples)


def rows_to_measure(config: TrainConfig, dataset: Dataset) -> int:
    """Return the hardware rows of a run with its test; without those of a twin's fit."""
    costs = budget(config, split_for(config, dataset))
    return costs.initial + costs.training + costs.checks + costs.audits + costs.test

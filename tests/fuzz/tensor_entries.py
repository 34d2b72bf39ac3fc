"""Rows as tensors: training, perturbations, twin fits, sentinels, audits, idle shots."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drivers.errors import LimitError
from lab.audit import audit_gradient
from lab.bench import Bench, open_bench
from lab.measure import DeviceMeasure
from lab.pat import PhysicalLayer
from lab.rules.base import Sums
from lab.rules.pepg import PolicyGradients
from lab.rules.spsa import SimultaneousPerturbation
from lab.scheduling.rhythm import Rhythm
from lab.scheduling.system_worker import idle_shot
from lab.sentinels import Sentinels, SentinelSettings, reference_rows
from lab.twins import measure_random
from limited_benches import (
    SHARES,
    limited_bench,
    verdicts,
)
from tally import Fuzz


class AskedMeasure:
    """measure(x, theta) of one system, every call of it counted and judged."""

    def __init__(self, fuzz: Fuzz, bench: Bench, system: str, *, rows: bool) -> None:
        self.description = bench.system(system).description
        self._fuzz, self._system, self._rows = fuzz, system, rows
        self._device: DeviceMeasure = bench.measure(system)

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        d = self.description
        physical = (
            spec.to_physical(values.detach().double().numpy())
            for spec, values in ((d.x, x), (d.theta, theta))
        )
        with self._fuzz.asked(verdicts(self._system, *physical, rows=self._rows)):
            return self._device(x, theta)


class Product(nn.Module):
    """A twin for systems with as many outputs as inputs."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return x * theta


def _on_benches(
    fuzz: Fuzz, work: Callable[[Fuzz, AskedMeasure, Bench, str], None], plain: float
) -> None:
    """Do `work` again and again on every system; plain: share without limits of rows."""
    begin = 0.0
    for system in SHARES:
        share = SHARES[system] - begin
        for rows, end in ((False, begin + plain * share), (True, begin + share)):
            fuzz.far.rows = rows
            with open_bench(limited_bench(system, rows=rows)) as bench:
                measure = AskedMeasure(fuzz, bench, system, rows=rows)
                while fuzz.goes_on(end):
                    with suppress(LimitError):
                        work(fuzz, measure, bench, system)
        begin = SHARES[system]
    fuzz.far.rows = True


def trainer(fuzz: Fuzz) -> None:
    """Train physical layers with huge parameters, steps and gradients, and NaN among them."""
    _on_benches(fuzz, _train, plain=0.25)


def _layers(fuzz: Fuzz, measure: AskedMeasure, count: int) -> nn.Sequential:
    rng, size = fuzz.rng, measure.description.theta.shape[0]
    middle = measure.description.theta.to_normalised(np.zeros(()))
    width = 10.0 ** rng.uniform(-3, 3) if rng.random() < 0.3 else rng.uniform(0.0, 0.2)
    layers = [
        PhysicalLayer(
            torch.from_numpy(middle + width * rng.standard_normal(size)), measure, Product()
        )
        for _ in range(count)
    ]
    for layer in layers:
        layer.clamped = bool(rng.random() < 0.4)
    return nn.Sequential(*layers)


def _features(fuzz: Fuzz, measure: AskedMeasure, rows: int) -> Tensor:
    rng, spec = fuzz.rng, measure.description.x
    middle = spec.to_normalised(np.zeros(()))
    width = rng.choice([0.01, 0.1, 0.5, 0.5, 1e6, 1e6])
    values = middle + width * rng.standard_normal((rows, spec.shape[0]))
    if rng.random() < 0.05:
        values[rng.integers(rows), 0] = np.nan
    return torch.from_numpy(values)


def _train(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rng = fuzz.rng
    network = _layers(fuzz, measure, int(rng.integers(1, 3)))
    features = _features(fuzz, measure, int(rng.integers(1, 33)))
    optimiser = torch.optim.SGD(network.parameters(), lr=10.0 ** rng.uniform(-3, 6))
    for _ in range(4):
        optimiser.zero_grad()
        network(features).square().sum().backward()
        if rng.random() < 0.05:
            next(iter(network.parameters())).grad[0] = torch.nan
        optimiser.step()


def spsa(fuzz: Fuzz) -> None:
    """Let SPSA and PEPG perturb parameters."""
    _on_benches(fuzz, _perturb, plain=0.25)


def _perturb(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rng = fuzz.rng
    network, features = _layers(fuzz, measure, 1), _features(fuzz, measure, 8)
    batch, seed = torch.arange(8), int(rng.integers(2**31))

    def loss(network: Any, batch: Tensor) -> tuple[Tensor, Sums]:
        value = network(features[batch]).square().mean()
        return value, Sums(float(value), 0.0, 0.0)

    both: list[Any] = [
        SimultaneousPerturbation(network, loss, seed=seed, step=10.0 ** rng.uniform(-3, 1)),  # type: ignore[arg-type]
        PolicyGradients(network, loss, seed=seed),  # type: ignore[arg-type]
    ]
    both[rng.integers(2)].step(batch)


def twin_fit(fuzz: Fuzz) -> None:
    """Measure the random drives that twins are fitted to."""
    _on_benches(fuzz, _fit_rows, plain=0.3)


def _fit_rows(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rows = int(fuzz.rng.integers(1, 4 if fuzz.rng.random() < 0.8 else 40))
    measure_random(measure, None, rows, seed=int(fuzz.rng.integers(2**31)))  # type: ignore[arg-type]


def calibration(fuzz: Fuzz) -> None:
    """Arm sentinels and look, audit gradients, and measure idle shots."""
    _on_benches(fuzz, _watch, plain=0.3)


def _audit(fuzz: Fuzz, measure: AskedMeasure) -> None:
    """Probe a network's gradient with steps of any length."""
    network, features = _layers(fuzz, measure, 1), _features(fuzz, measure, 2)
    parameters = list(network.parameters())
    audit_gradient(
        lambda: network(features).square().mean(1),
        parameters,
        [torch.randn_like(p) for p in parameters],
        physical=parameters,
        generator=torch.Generator().manual_seed(0),
        probes=2,
        step=10.0 ** fuzz.rng.uniform(-3, 2),
    )


def _watch(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rng = fuzz.rng
    if rng.random() < 0.4:
        with suppress(ValueError):  # a loss that is huge everywhere has no gradient to compare
            _audit(fuzz, measure)
        return
    drives = reference_rows(
        measure.description, int(rng.integers(1, 3)), seed=int(rng.integers(2**31))
    )
    if rng.random() < 0.2:
        d = measure.description
        x, theta = (
            s.to_physical(v[:1].double().numpy())
            for s, v in zip((d.x, d.theta), drives, strict=True)
        )
        verdict = verdicts(system, x, theta, rows=fuzz.far.rows)
        if verdict[0] == 0:  # idle shots repeat a row that has been measured
            with fuzz.asked(verdict):
                rhythm = Rhythm(1.0, lambda: 0.0, lambda _: None)
                idle_shot(bench.system(system), (x, theta), rhythm)
        return
    settings = SentinelSettings(looks=int(rng.integers(2, 5)))
    sentinels = Sentinels(measure, Product(), drives, clock=lambda: 0.0, settings=settings)
    with suppress(ValueError):  # so few looks may all be the same, which is no reference
        sentinels.arm()
        sentinels.look()

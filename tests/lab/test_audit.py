"""The gradient audit: right about the cosine, honest about its interval, and without a trace."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fake_physics import Device, Twin
from lab.audit import STEP, Audit, audit_gradient, evaluations
from lab.audit_watch import AuditWatch
from lab.cosine_interval import Components, cosine_interval
from lab.pat import PhysicalLayer

SAMPLES = 50


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Bowl:
    """Losses with a known gradient: samples' noisy, curved functions of 40 + 20 parameters."""

    physical: nn.Parameter
    digital: nn.Parameter
    gradient: Tensor
    twin: Tensor
    noise: float
    source: torch.Generator
    seen: list[Tensor]

    def losses(self) -> Tensor:
        assert not torch.is_grad_enabled()
        self.seen.append(self.physical.clone())
        p = torch.cat([self.physical, self.digital])
        value = self.gradient @ p + p.square().sum() + 0.3 * (p**3).mean()
        noise = torch.randn(SAMPLES, generator=self.source)
        return value + self.noise * torch.linspace(0.5, 1.5, SAMPLES) * noise

    def true_gradient(self) -> Tensor:
        p = torch.cat([self.physical, self.digital]).detach()
        return self.gradient + 2 * p + 0.9 * p.square() / len(p)

    def audit(self, **more: object) -> Audit:
        values: dict[str, object] = {"physical": [self.physical], "generator": self.source}
        parameters = [self.physical, self.digital]
        gradients = list(self.twin.split([40, 20]))
        return audit_gradient(self.losses, parameters, gradients, **{**values, **more})  # type: ignore[arg-type]


def bowl(seed: int, *, cosine: float = 0.7, noise: float = 0.0) -> Bowl:
    """Return a bowl whose twin's gradient has exactly this cosine with the true one."""
    g = generator(seed)
    physical = nn.Parameter(0.2 + 0.6 * torch.rand(40, generator=g))
    digital = nn.Parameter(torch.randn(20, generator=g))
    # a few entries large, as in a network
    made = Bowl(physical, digital, torch.randn(60, generator=g) ** 3, torch.zeros(60), noise, g, [])
    true = made.true_gradient()
    other = torch.randn(60, generator=g)
    other -= (other @ true) / (true @ true) * true
    made.twin = cosine * true / true.norm() + (1 - cosine**2) ** 0.5 * other / other.norm()
    return made


@pytest.mark.parametrize(
    ("cosine", "noise"), [(-0.3, 0.0), (0.5, 1.0), (0.95, 1.0), (0.0, 10.0), (0.7, 30.0)]
)
def test_the_interval_holds_the_true_cosine(cosine: float, noise: float) -> None:
    """In at least 90 % of 50 audits, from no noise to more of it than signal."""
    audits = [bowl(seed, cosine=cosine, noise=noise).audit() for seed in range(50)]
    assert sum(a.low <= cosine <= a.high for a in audits) >= 45
    assert all(-1 <= a.low <= a.high <= 1 for a in audits)


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_many_probes_come_within_a_tenth(noise: float) -> None:
    audits = [bowl(seed, noise=noise).audit(probes=40) for seed in range(30)]
    assert sum(abs(a.cosine - 0.7) < 0.1 for a in audits) >= 27


def test_a_good_twin_is_recognised_with_few_probes() -> None:
    """Only the remainder is guessed: at a cosine of 0.95 16 probes give it within some 0.03."""
    audits = [bowl(seed, cosine=0.95).audit() for seed in range(30)]
    assert np.mean([a.high - a.low for a in audits]) < 0.12
    assert max(abs(a.cosine - 0.95) for a in audits) < 0.1


def test_as_many_probes_as_dimensions_leave_nothing_to_chance() -> None:
    """Without noise, as far as the probes' cubic error goes."""
    made = bowl(0, cosine=0.6)
    audit = made.audit(probes=500, step=0.01)
    assert audit.probes == 59
    assert audit.cosine == pytest.approx(0.6, abs=2e-3)
    assert audit.norm == pytest.approx(float(made.true_gradient().norm()), rel=2e-3)
    assert audit.along == pytest.approx(0.6 * audit.norm, rel=2e-2)
    assert audit.high - audit.low < 1e-6


def test_where_noise_is_everything_the_interval_says_so() -> None:
    audit = bowl(0, noise=1e4).audit()
    assert audit.high - audit.low > 1.2


def test_parameters_come_back_bit_for_bit_whatever_happens() -> None:
    made = bowl(0)
    before = [p.detach().clone() for p in (made.physical, made.digital)]
    made.audit()
    count = 0

    def fail() -> Tensor:
        nonlocal count
        count += 1
        if count == 7:
            raise RuntimeError("the lamp went out")
        return made.losses()

    with pytest.raises(RuntimeError, match="lamp"):
        audit_gradient(
            fail,
            [made.physical, made.digital],
            list(made.twin.split([40, 20])),
            physical=[made.physical],
            generator=generator(),
        )
    for parameter, saved in zip((made.physical, made.digital), before, strict=True):
        assert torch.equal(parameter, saved)
        assert parameter.grad is None


def test_no_probe_reaches_the_ends_of_the_physical_range() -> None:
    made = bowl(0)
    ends = torch.tensor([-0.2, 0.0, 0.03, 0.97, 1.0, 1.3])
    with torch.no_grad():
        made.physical[:6] = ends
    audit = made.audit()
    assert audit.audited == 60 - 6
    assert 0 < audit.share < 1
    probed = torch.stack(made.seen)
    assert torch.equal(probed[:, :6], ends.expand(len(probed), -1))
    assert 0 < float(probed[:, 6:].min()) <= float(probed[:, 6:].max()) < 1
    moved = (probed - made.physical.detach()).abs().max()
    assert 0.9 * STEP < float(moved) < 1.001 * STEP


def test_the_cosine_is_that_of_the_audited_entries() -> None:
    made = bowl(0)
    with torch.no_grad():
        made.physical[:20] = 0.0
    audit = made.audit(probes=500, step=0.01)
    true = made.true_gradient()[20:]
    expected = nn.functional.cosine_similarity(true, made.twin[20:], dim=0)
    assert audit.cosine == pytest.approx(float(expected), abs=2e-3)


def test_an_audit_costs_what_it_says() -> None:
    made = bowl(0)
    audit = made.audit(probes=16)
    assert audit.evaluations == len(made.seen) == evaluations(16) == 40
    assert evaluations(2) == 8


def test_the_same_generator_gives_the_same_audit() -> None:
    assert bowl(3, noise=1.0).audit() == bowl(3, noise=1.0).audit()


def test_a_physical_layer_is_audited_through_its_measurement() -> None:
    """The twin's slopes by theta are measured values' slopes here, for y is linear in theta."""
    device = Device()
    layer = PhysicalLayer(torch.full((3,), 0.5), device, Twin())
    x = torch.rand(200, 3, generator=generator())

    def losses() -> Tensor:
        return layer(x).square().mean(1)

    gradient = torch.autograd.grad(losses().mean(), [layer.theta])
    audit = audit_gradient(
        losses, [layer.theta], gradient, physical=[layer.theta], generator=generator()
    )
    clean = torch.sin(3 * x) * 0.5
    true = (2 / 3 * clean * torch.sin(3 * x)).mean(0)
    expected = float(nn.functional.cosine_similarity(true, gradient[0], dim=0))
    assert audit.low <= expected <= audit.high
    assert audit.probes == 2
    assert len(device.calls) == 1 + audit.evaluations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.audit(probes=1), "at least 2"),
        (lambda b: b.audit(step=0.0), "above 0"),
        (lambda b: replace(b, gradient=b.gradient * torch.nan).audit(), "50 numbers not finite"),
        (lambda b: replace(b, twin=torch.zeros(60)).audit(), "is zero"),
        (lambda b: replace(b, twin=b.twin * torch.nan).audit(), "not finite"),
        (lambda b: b.audit(physical=[nn.Parameter(torch.rand(2))]), "not among"),
    ],
)
def test_bad_input_is_named(change: Callable[[Bowl], Audit], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(bowl(0))


def test_gradients_of_other_shapes_are_refused() -> None:
    made = bowl(0)
    with pytest.raises(ValueError, match=r"\(20,\)"):
        audit_gradient(
            made.losses,
            [made.physical, made.digital],
            list(made.twin.split([20, 40])),
            physical=[made.physical],
            generator=generator(),
        )


def test_too_few_parameters_inside_the_range_are_refused() -> None:
    theta = nn.Parameter(torch.tensor([0.0, 0.5, 0.5, 1.0]))
    with pytest.raises(ValueError, match="only 2 of 4 parameters"):
        audit_gradient(
            lambda: theta.square(), [theta], [theta], physical=[theta], generator=generator()
        )


def test_zeros_alone_say_nothing() -> None:
    nothing = Components(0.0, 0.0, np.zeros(4), 0.0, 20, np.inf)
    assert nothing.cosine == 0.0
    assert cosine_interval(nothing) == (-1.0, 1.0)


AUDIT = Audit(0.6, 0.4, 0.8, 1.0, 0.6, 16, 40, 100, 1.0)


def test_a_refit_is_asked_for_when_it_is_certain_or_seen_twice() -> None:
    watch = AuditWatch(every=100)
    low, certain = replace(AUDIT, cosine=0.45), replace(AUDIT, cosine=0.3, low=0.1, high=0.45)
    seen = [AUDIT, low, AUDIT, low, low, low, low, certain, low, AUDIT]
    asked = [watch.asks_for_refit(audit) for audit in seen]
    assert asked == [False, False, False, False, True, False, True, True, False, False]


def test_audits_are_due_every_so_many_steps() -> None:
    watch = AuditWatch(every=3)
    assert [step for step in range(8) if watch.due(step)] == [3, 6]
    with pytest.raises(ValueError, match="every 0 steps"):
        AuditWatch(every=0)

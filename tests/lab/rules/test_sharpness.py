"""Sharpness-aware training: the gradient nearby, and parameters that come back."""

import pytest
import torch

from lab.rules.sharpness import SharpnessAware
from small_rules import CountedRows, analytic_network, blob_objective, taken_gradient, true_gradient

ALL = torch.arange(24)


def test_without_a_radius_it_is_the_plain_gradient() -> None:
    objective = blob_objective()
    network = analytic_network(objective)
    truth = true_gradient(network, objective)
    SharpnessAware(network, objective, rho=0.0).step(ALL)
    for name, gradient in taken_gradient(network).items():
        assert torch.equal(gradient, truth[name])


def test_it_is_the_gradient_at_the_point_up_the_slope() -> None:
    objective = blob_objective()
    network, there = analytic_network(objective), analytic_network(objective)
    truth = true_gradient(network, objective)
    norm = torch.cat([g.flatten() for g in truth.values()]).norm()
    with torch.no_grad():
        for name, p in there.named_parameters():
            p += 0.05 * truth[name] / norm
    _, sums = objective(network, ALL)
    (seen,) = SharpnessAware(network, objective).step(ALL)
    assert seen == sums
    expected = true_gradient(there, objective)
    for name, gradient in taken_gradient(network).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_parameters_come_back_bit_for_bit_whatever_happens() -> None:
    objective, calls = blob_objective(), [0]
    network = analytic_network(objective)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}

    def fails_at_the_second(net, batch):  # type: ignore[no-untyped-def]
        calls[0] += 1
        if calls[0] == 2:
            moved = [not torch.equal(before[n], p) for n, p in net.named_parameters()]
            assert any(moved)
            raise RuntimeError("the lamp is out")
        return objective(net, batch)

    with pytest.raises(RuntimeError, match="the lamp is out"):
        SharpnessAware(network, fails_at_the_second).step(ALL)
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())


def test_it_measures_twice() -> None:
    objective, measure = blob_objective(), CountedRows()
    network = analytic_network(objective, measure=measure)
    measure.rows = 0
    SharpnessAware(network, objective).step(ALL)
    assert measure.rows == 2 * 24 * 3

"""SPSA and PEPG: estimates from losses alone point where the gradient points."""

from collections.abc import Callable

import pytest
import torch

from lab.models import PhysicalNetwork
from lab.rules.base import Objective, Rule, size
from lab.rules.pepg import PolicyGradients
from lab.rules.spsa import SimultaneousPerturbation
from small_rules import (
    CountedRows,
    Undifferentiable,
    analytic_network,
    blob_objective,
    cosine,
    taken_gradient,
    true_gradient,
)

Make = Callable[..., Rule]


def spsa(network: PhysicalNetwork, objective: Objective, seed: int = 0, number: int = 3) -> Rule:
    return SimultaneousPerturbation(network, objective, seed=seed, probes=number, step=0.01)


def pepg(network: PhysicalNetwork, objective: Objective, seed: int = 0, number: int = 3) -> Rule:
    return PolicyGradients(network, objective, seed=seed, pairs=number)


RULES: list[Make] = [spsa, pepg]
ALL = torch.arange(24)


@pytest.mark.parametrize("make", RULES)
def test_the_mean_of_many_probes_points_along_the_gradient(make: Make) -> None:
    objective = blob_objective()
    truth = true_gradient(analytic_network(objective), objective)
    network = analytic_network(objective, twin=Undifferentiable())
    make(network, objective, number=200).step(ALL)
    estimate = taken_gradient(network)
    # by the step of each parameter, where the estimate's noise is the same for all 63 of them:
    # 200 probes give a cosine near sqrt(200 / 263) = 0.87
    sizes = {name: size(p) for name, p in network.named_parameters()}
    scaled = ({name: sizes[name] * g for name, g in each.items()} for each in (estimate, truth))
    assert cosine(*scaled) > 0.75


@pytest.mark.parametrize("make", RULES)
def test_probing_leaves_the_parameters_bit_for_bit(make: Make) -> None:
    objective = blob_objective()
    network = analytic_network(objective)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    make(network, objective).step(ALL)
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())


@pytest.mark.parametrize("make", RULES)
def test_probes_follow_from_the_seed(make: Make) -> None:
    objective = blob_objective()
    taken = []
    for seed in (0, 0, 1):
        network = analytic_network(objective)
        make(network, objective, seed).step(ALL)
        taken.append(taken_gradient(network)["blocks.0.layer.theta"])
    assert torch.equal(taken[0], taken[1])
    assert not torch.equal(taken[0], taken[2])


@pytest.mark.parametrize("make", RULES)
def test_each_probe_measures_twice(make: Make) -> None:
    objective, measure = blob_objective(), CountedRows()
    network = analytic_network(objective, measure=measure)
    measure.rows = 0
    make(network, objective).step(ALL[:2])
    assert measure.rows == 2 * 3 * 2 * 3


def test_frozen_parameters_stay_and_are_not_probed() -> None:
    objective = blob_objective()
    network = analytic_network(objective)
    network.layers[0].theta.requires_grad_(False)
    SimultaneousPerturbation(network, objective, seed=0).step(ALL)
    assert network.layers[0].theta.grad is None
    assert network.layers[1].theta.grad is not None


def test_the_spread_grows_where_far_steps_do_better() -> None:
    """With a loss that falls away from the mean in one parameter, its sigma grows, others' not."""
    objective = blob_objective()
    network = analytic_network(objective)
    start = network.layers[0].theta.detach().clone()

    def loss(net, batch):  # type: ignore[no-untyped-def]
        _, sums = objective(net, batch)
        return -(net.layers[0].theta - start)[0, 0].square(), sums

    rule = PolicyGradients(network, loss, seed=0, pairs=20)
    for _ in range(20):
        rule.step(ALL[:2])
    names = [name for name, _ in network.named_parameters()]
    sigma = rule.sigmas[names.index("blocks.0.layer.theta")][0]
    assert sigma[0] > 1.5 * sigma[1:].max()


def test_the_spread_of_a_quadratic_bowl_shrinks() -> None:
    objective = blob_objective()
    network = analytic_network(objective)
    start = network.layers[0].theta.detach().clone()

    def loss(net, batch):  # type: ignore[no-untyped-def]
        _, sums = objective(net, batch)
        return (net.layers[0].theta - start)[0, 0].square(), sums

    rule = PolicyGradients(network, loss, seed=0, pairs=20)
    rule.step(ALL[:2])
    names = [name for name, _ in network.named_parameters()]
    before = rule.sigmas[names.index("blocks.0.layer.theta")][0, 0].clone()
    for _ in range(20):
        rule.step(ALL[:2])
    after = rule.sigmas[names.index("blocks.0.layer.theta")][0, 0]
    assert after < 0.7 * before

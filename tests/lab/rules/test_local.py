"""Physical local learning: matrices learn, physics is measured only."""

import pytest
import torch

from lab.config import TrainConfig
from lab.errors import ConfigError
from lab.labels import with_labels
from lab.network_config import Linear, NetworkConfig
from lab.rules.choose import refuse_impossible
from lab.rules.local import LocalLearning, contrast
from small_rules import (
    CLASSES,
    MIXED,
    CountedRows,
    Undifferentiable,
    analytic_network,
    blob_objective,
    taken_gradient,
)

ALL = torch.arange(24)


def test_it_learns_while_physics_is_never_differentiated() -> None:
    objective = blob_objective(labelled=True)
    network = analytic_network(objective, MIXED, twin=Undifferentiable())
    rule = LocalLearning(network, objective, seed=0)
    theta = [p.detach().clone() for p in network.physical_parameters()]
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.02)
    before = _contrast_of(network, objective)
    for _ in range(100):
        optimiser.zero_grad()
        rule.step(ALL)
        optimiser.step()
    with torch.no_grad():
        _, sums = objective(network, ALL)
    assert sums.correct >= 22
    assert _contrast_of(network, objective) < 0.7 * before
    after = network.physical_parameters()
    assert all(torch.equal(a, b) for a, b in zip(theta, after, strict=True))


@torch.no_grad()
def _contrast_of(network, objective) -> float:  # type: ignore[no-untyped-def]
    """Return the first matrix's loss on right labels and each sample's next wrong one."""
    outputs = []
    for shift in (0, 1):
        labels = (objective.labels + shift) % CLASSES
        encoded = network.encode(with_labels(objective.features, labels, CLASSES))
        outputs.append(network.blocks[0](encoded, encoded).flatten(1))
    return float(contrast(*outputs))


def test_no_gradient_crosses_a_layer() -> None:
    objective = blob_objective(labelled=True, penalty=0.0)
    taken = []
    for factor in (1.0, 2.0):
        network = analytic_network(objective, MIXED)
        with torch.no_grad():
            network.output_stages()[1].weight.mul_(factor)
        LocalLearning(network, objective, seed=0).step(ALL)
        taken.append(taken_gradient(network))
    name = "blocks.0.after.0.mixing.weight"
    assert taken[0][name].abs().sum() > 0
    assert torch.equal(taken[0][name], taken[1][name])


def test_the_range_penalty_keeps_a_matrix_in_the_next_layers_range() -> None:
    name = "blocks.0.after.0.mixing.offset"
    objectives = [blob_objective(labelled=True, penalty=p) for p in (0.0, 10.0)]
    gradients = []
    for objective in objectives:
        network = analytic_network(objective, MIXED)
        with torch.no_grad():
            network.blocks[0].after[0].mixing.offset += 1.0
        LocalLearning(network, objective, seed=0).step(ALL)
        gradients.append(taken_gradient(network)[name])
    assert bool((gradients[1] > gradients[0]).all())  # downwards, into the range


def test_each_sample_passes_three_times() -> None:
    objective, measure = blob_objective(labelled=True), CountedRows()
    network = analytic_network(objective, MIXED, measure=measure)
    measure.rows = 0
    LocalLearning(network, objective, seed=0).step(ALL)
    assert measure.rows == 3 * 24 * 2


def test_wrong_labels_are_wrong_and_neutral_ones_tell_nothing() -> None:
    objective = blob_objective(labelled=True)
    rule = LocalLearning(analytic_network(objective, MIXED), objective, seed=0)
    right, wrong, neutral = rule._features(ALL).tensor_split(3)
    assert torch.equal(right[:, -CLASSES:].argmax(1), objective.labels)
    assert not bool((wrong[:, -CLASSES:].argmax(1) == objective.labels).any())
    assert torch.equal(neutral, objective.features)
    assert float(neutral[0, -1]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "network",
    [NetworkConfig(), NetworkConfig(layers=1, after=(Linear(),)), NetworkConfig(last=(Linear(),))],
)
def test_a_network_without_digital_mixing_is_refused(network: NetworkConfig) -> None:
    config = TrainConfig(method="phyll", network=network)
    with pytest.raises(ConfigError, match=r"'phyll' trains digital matrices.*kind 'linear'"):
        refuse_impossible(config)
    refuse_impossible(config.model_copy(update={"method": "pat"}))


def test_a_control_that_leaves_nothing_to_train_is_refused() -> None:
    config = TrainConfig(method="phyll", control="physics_only", network=MIXED)
    with pytest.raises(ConfigError, match="leaves 'phyll' nothing to train"):
        refuse_impossible(config)

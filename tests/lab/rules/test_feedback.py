"""Direct feedback alignment: local gradients of a projected error."""

import pytest
import torch

from lab.network_config import Linear, NetworkConfig, Standardise
from lab.rules.base import Objective
from lab.rules.feedback import DirectFeedback
from small_rules import (
    CLASSES,
    MIXED,
    SIZE,
    CountedRows,
    analytic_network,
    blob_objective,
    taken_gradient,
    true_gradient,
)

ALL = torch.arange(24)


def test_the_last_block_gets_its_true_gradient_and_the_others_do_not() -> None:
    objective = blob_objective()
    network = analytic_network(objective)
    truth = true_gradient(network, objective)
    DirectFeedback(network, objective, seed=0).step(ALL)
    for name, gradient in taken_gradient(network).items():
        same = torch.allclose(gradient, truth[name], rtol=1e-9, atol=1e-12)
        assert same == name.startswith("blocks.2"), name


class LinearPhysics(torch.nn.Module):
    """y = x mixed with a neighbour: its Jacobian is the same for every sample."""

    def forward(self, x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        return 0.2 + 0.3 * x + 0.2 * x.roll(1, 1) + 0.1 * theta


def test_with_the_true_transposed_matrices_it_is_backpropagation() -> None:
    objective = blob_objective(penalty=0.0)
    network = analytic_network(objective, measure=LinearPhysics(), twin=LinearPhysics())
    truth = true_gradient(network, objective)
    rule = DirectFeedback(network, objective, seed=0)
    cuts, _ = network.cut_outputs(objective.features)
    jacobians = []
    for i, h in enumerate(cuts):
        begin = h.detach()[:1]

        def onward(values: torch.Tensor, first: int = i + 1) -> torch.Tensor:
            for block in network.physical_blocks()[first:]:
                values = block(values, values)
            return values

        jacobian = torch.autograd.functional.jacobian(onward, begin)
        jacobians.append(jacobian.reshape(CLASSES, -1).detach())
    rule.feedback = jacobians
    rule.step(ALL)
    for name, gradient in taken_gradient(network).items():
        torch.testing.assert_close(gradient, truth[name], rtol=1e-8, atol=1e-12, msg=name)


def test_a_range_penalty_reaches_both_sides_of_the_boundary_and_no_further() -> None:
    objective = blob_objective(penalty=0.0)
    network = analytic_network(objective, MIXED)
    with torch.no_grad():  # out of range
        network.blocks[0].after[0].mixing.offset += 1.0
    heavy = Objective(objective.features, objective.labels, CLASSES, penalty=7.0)
    gradients = []
    for each in (objective, heavy):
        DirectFeedback(network, each, seed=0).step(ALL)
        gradients.append(taken_gradient(network))
    changed = {
        name for name in gradients[0] if not torch.equal(gradients[0][name], gradients[1][name])
    }
    network(objective.features)
    expected = torch.autograd.grad(7.0 * network.penalty, network.blocks[0].after[0].mixing.offset)
    name = "blocks.0.after.0.mixing.offset"
    torch.testing.assert_close(gradients[1][name] - gradients[0][name], expected[0])
    assert name in changed
    assert "blocks.1.after.1.weight" not in changed


def test_an_encoder_that_is_trained_belongs_to_the_first_block() -> None:
    objective = blob_objective()
    config = NetworkConfig(
        layers=2, theta="normal", first=Linear(), after=(Linear(),), last=(Standardise(), Linear())
    )
    network = analytic_network(objective, config)
    DirectFeedback(network, objective, seed=0).step(ALL)
    assert taken_gradient(network)["encoder.mixing.weight"].abs().sum() > 0


def test_matrices_follow_from_the_seed() -> None:
    objective = blob_objective()
    drawn = []
    for seed in (0, 0, 1):
        rule = DirectFeedback(analytic_network(objective), objective, seed=seed)
        rule.step(ALL)
        drawn.append(rule.feedback)
    assert [tuple(m.shape) for m in drawn[0]] == [(CLASSES, SIZE)] * 2
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert not torch.equal(drawn[0][0], drawn[2][0])


@pytest.mark.parametrize("which", ["physical", "digital"])
def test_it_works_where_a_control_has_frozen_parts(which: str) -> None:
    objective, measure = blob_objective(), CountedRows()
    network = analytic_network(objective, measure=measure)
    frozen = network.physical_parameters() if which == "physical" else network.digital_parameters()
    for p in frozen:
        p.requires_grad_(False)
    measure.rows = 0
    DirectFeedback(network, objective, seed=0).step(ALL)
    assert measure.rows == 24 * 3
    assert all(p.grad is None for p in frozen)
    assert any(p.grad is not None for p in network.parameters())

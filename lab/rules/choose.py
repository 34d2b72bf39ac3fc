"""The update rule of each method."""

from lab.config import TrainConfig
from lab.models import PhysicalNetwork
from lab.pipeline import Pipeline
from lab.rules.backprop import Backpropagation
from lab.rules.base import Loss, Rule


def choose_rule(
    config: TrainConfig,
    network: PhysicalNetwork,
    pipeline: Pipeline[PhysicalNetwork],
    loss: Loss,
) -> Rule:
    """Return the rule by which `config.method` turns a batch into gradients."""
    return Backpropagation(pipeline, loss)

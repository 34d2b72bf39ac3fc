"""The update rule of each method, and what else goes by the method."""

from lab.config import Method, TrainConfig
from lab.errors import ConfigError
from lab.models import PhysicalNetwork
from lab.pipeline import Pipeline
from lab.rules.backprop import Backpropagation
from lab.rules.base import Objective, Rule
from lab.rules.feedback import DirectFeedback
from lab.rules.local import LocalLearning
from lab.rules.pepg import PolicyGradients
from lab.rules.sharpness import SharpnessAware
from lab.rules.spsa import SimultaneousPerturbation

# Factor on the config's learning rates, where it is not 1: Adam takes steps of the same size
# however uncertain a gradient is, and these are estimates from few losses.
RATE_FACTORS: dict[Method, float] = {"spsa": 0.1, "pepg": 0.1}


def choose_rule(
    config: TrainConfig,
    network: PhysicalNetwork,
    pipeline: Pipeline[PhysicalNetwork],
    objective: Objective,
) -> Rule:
    """Return the rule by which `config.method` turns a batch into gradients."""
    match config.method:
        case "dfa":
            return DirectFeedback(network, objective, seed=config.seed)
        case "spsa":
            return SimultaneousPerturbation(network, objective, seed=config.seed)
        case "pepg":
            return PolicyGradients(network, objective, seed=config.seed)
        case "pat-sharpness":
            return SharpnessAware(network, objective)
        case "phyll":
            return LocalLearning(network, objective, seed=config.seed)
        case _:
            return Backpropagation(pipeline, objective)


def refuse_impossible(config: TrainConfig) -> None:
    """Raise ConfigError where the method cannot train the network."""
    if config.method != "phyll":
        return
    if not config.network.mixes_between:
        raise ConfigError(
            "method: 'phyll' trains digital matrices between the layers and nothing physical; "
            f"this network of {config.network.layers} layers has none "
            "(network.after needs a stage of kind 'linear', network.layers at least 2)"
        )
    if config.control == "physics_only":
        raise ConfigError("control: 'physics_only' leaves 'phyll' nothing to train")

"""A small analytic network of optical-like layers, and what update rules are compared with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lab.models import PhysicalNetwork, build_network
from lab.network_config import Linear, NetworkConfig, Rescale, Standardise
from lab.rules.base import Objective

SIZE = 6
CLASSES = 3
MIXED = NetworkConfig(
    layers=2,
    theta="normal",
    after=(Linear(),),
    last=(Standardise(), Linear()),
)
PLAIN = NetworkConfig(layers=3, theta="normal", after=(Rescale(),), last=(Standardise(), Linear()))


class Truth(nn.Module):
    """Physics that everybody knows: y = (x * theta mixed with a neighbour) squared."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        field = x * theta
        return (field + 0.5 * field.roll(1, 1)).square()


class Undifferentiable(nn.Module):
    """A twin that must not be asked."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        raise AssertionError("physics was differentiated")


class CountedRows:
    """Measure the truth, and count the rows."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        self.rows += len(x)
        value: Tensor = Truth()(x, theta)
        return value


def blob_objective(samples: int = 24, penalty: float = 1.0, labelled: bool = False) -> Objective:
    """Separable classes of three features in double precision, with a label's place if asked."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % CLASSES
    features = 0.2 + 0.5 * nn.functional.one_hot(labels, CLASSES)
    features = features + 0.1 * torch.randn(features.shape, generator=g)
    if labelled:
        features = nn.functional.pad(features, (0, CLASSES), value=1 / CLASSES)
    return Objective(features.double().clamp(0, 1), labels, CLASSES, penalty)


def analytic_network(
    objective: Objective,
    config: NetworkConfig = PLAIN,
    measure: Callable[[Tensor, Tensor], Tensor] | None = None,
    twin: nn.Module | None = None,
    seed: int = 0,
) -> PhysicalNetwork:
    network = build_network(
        Truth() if measure is None else measure,
        Truth() if twin is None else twin,
        config,
        features=objective.features.shape[1],
        x_size=SIZE,
        theta_size=SIZE,
        y_size=SIZE,
        classes=CLASSES,
        seed=seed,
    ).double()
    network.initialise(objective.features)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # matrices that start at zero would hide the layers before them
        for stage in network.output_stages():
            for p in stage.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=g))
    return network


def true_gradient(network: PhysicalNetwork, objective: Objective) -> dict[str, Tensor]:
    """Return the gradient by backpropagation over all samples, and leave .grad empty."""
    value, _ = objective(network, torch.arange(len(objective.labels)))
    value.backward()
    return taken_gradient(network)


def taken_gradient(network: PhysicalNetwork) -> dict[str, Tensor]:
    """Return .grad by the parameters' names and empty it; zeros where there is none."""
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in network.named_parameters()
    }
    network.zero_grad()
    return found


def cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    first, second = (torch.cat([g[name].flatten() for name in a]) for g in (a, b))
    return float(nn.functional.cosine_similarity(first, second, dim=0))

"""Small networks with physical layers, benches for them, and how their training is compared."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.bench_config import load_bench
from lab.pat import PhysicalLayer

BENCH = load_bench(Path(__file__).parents[2] / "bench.toml")

# Double precision, and gradients that differ in the order of their sums: about 1e-16, which Adam
# may enlarge where a gradient is small (1e-15 was seen). A row with another key, or a sample with
# another weight, changes a parameter by more than 0.1.
ROUNDING = 1e-10


@contextmanager
def optics(noise: float) -> Iterator[Apparatus]:
    rig = BENCH.rigs["optics"].model_copy(update={"noise": noise})
    with open_bench(BENCH.model_copy(update={"rigs": {"optics": rig}})) as bench:
        yield open_apparatus(bench, "optics")


class Line(nn.Module):
    """A twin of a system with one input, one parameter and one output."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return x * theta


def simple_network(measure: Callable[[Tensor, Tensor], Tensor], layers: int) -> nn.Sequential:
    parts = [PhysicalLayer(torch.tensor([0.3 + 0.1 * i]), measure, Line()) for i in range(layers)]
    return nn.Sequential(*parts)


def squares(network: nn.Module, rows: Tensor) -> tuple[Tensor, int]:
    return network(rows[:, None]).square().mean(), len(rows)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {n: torch.zeros(1) if p.grad is None else p.grad for n, p in network.named_parameters()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=ROUNDING, rtol=ROUNDING, msg=name)

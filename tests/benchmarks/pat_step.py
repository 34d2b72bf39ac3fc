"""What a PAT step costs beyond its lower bound: one twin forward plus one twin backward.

The device is free (it returns a ready tensor); inputs and theta both want gradients; clamp and
refit are excluded. Interleaved rounds, medians of the per-round ratios. Times are the thread's own
CPU time, so that other work on the machine does not count. Prints a table, or JSON with
`ratio_to_bound`: twin -> ratio.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from lab.pat import pat
from twins.optics import OpticsTwin

ROUNDS, STEPS = 200, 5


class Perceptron(nn.Module):
    """A plain perceptron twin over the joined inputs."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.net(torch.cat((x, theta), dim=1))


def time_step(step: Callable[[], None]) -> float:
    start = time.thread_time()
    for _ in range(STEPS):
        step()
    return (time.thread_time() - start) / STEPS


def measure(twin: nn.Module, rows: int) -> tuple[float, float, float]:
    """Return the median ratio, and the best times in ms of a PAT step and of the bound."""
    x, theta = (torch.rand(rows, 50).requires_grad_() for _ in range(2))
    ready = twin(x, theta).detach()
    g = torch.randn_like(ready)

    def pat_step() -> None:
        torch.autograd.grad(pat(x, theta, lambda a, b: ready, twin), (x, theta), g)

    def bound() -> None:
        torch.autograd.grad(twin(x, theta), (x, theta), g)

    time_step(pat_step), time_step(bound)
    pairs = [(time_step(pat_step), time_step(bound)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    return ratio, min(a for a, _ in pairs) * 1e3, min(b for _, b in pairs) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = {
        "mlp_100_256_256_50_b32": (Perceptron((100, 256, 256, 50)), 32),
        "mlp_100_400_400_50_b128": (Perceptron((100, 400, 400, 50)), 128),
        "optics_b32": (OpticsTwin(), 32),
    }
    results = {}
    for name, (twin, rows) in cases.items():
        for parameter in twin.parameters():
            parameter.requires_grad_(False)
        results[name] = measure(twin.eval(), rows)
    if options.json:
        print(json.dumps({"ratio_to_bound": {name: r[0] for name, r in results.items()}}))
        return
    print(f"{'twin':26s} {'PAT ms':>8s} {'bound ms':>9s} {'ratio':>6s}  (at most 1.2)")
    for name, (ratio, ours, bound) in results.items():
        print(f"{name:26s} {ours:8.3f} {bound:9.3f} {ratio:6.3f}")


if __name__ == "__main__":
    main()

"""What a training run may use of a lab: the device, and on simulated benches its true gradient."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lab.bench import Bench
from lab.measure import DeviceMeasure, DevicePart, DirectRun, Run
from lab.oracle import open_oracle
from lab.systems.base import SystemDescription


@dataclass(frozen=True)
class Apparatus:
    """One system as training sees it.

    open_device(stream, first_row) numbers rows of a noise stream; open_oracle(device) raises
    ValueError on a real bench.
    """

    description: SystemDescription
    open_device: Callable[[int, int], DeviceMeasure]
    open_oracle: Callable[[DeviceMeasure | DevicePart], nn.Module]


def open_apparatus(bench: Bench, name: str, run: Run | None = None) -> Apparatus:
    """Return a system of the bench, its rows executed by `run` (default: directly, here)."""
    system = bench.system(name)
    execute = DirectRun(system) if run is None else run
    return Apparatus(
        description=system.description,
        open_device=lambda stream, first: DeviceMeasure(
            system.description, execute, stream=stream, first_row=first
        ),
        open_oracle=lambda device: open_oracle(system, bench.plant(name), device),
    )

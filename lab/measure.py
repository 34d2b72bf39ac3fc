"""The device as the trainer sees it: one callable, normalised tensors in and out.

The single place where normalised values become physical units and back.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from drivers.row_key import RowKey, row_keys
from drivers.spec import Array
from lab.errors import PassCancelled
from lab.systems.base import PhysicalSystem, SystemDescription, never


class Run(Protocol):
    """What executes rows: x, theta in physical units and the rows' keys -> y in physical units.

    Thread-safe. depth: the layer, see `ForwardPass`. Once `stopped` says so no row of the call may
    start any more, and it ends with PassCancelled.
    """

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        """Execute rows; raise what the system raises."""

    def cancel(self) -> None:
        """Cancel the calls that are under way now, from any thread; do not wait for their end."""

    def hardware_s(self) -> float:
        """Return the time from each call's first row to its last one's end, summed, s."""


class DirectRun:
    """Execute rows on a system here, in the calling thread, one call at a time."""

    def __init__(self, system: PhysicalSystem) -> None:
        """Measure on `system`, which nobody else uses meanwhile."""
        self._system = system
        self._turn = threading.Lock()
        self._hardware_s = 0.0

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        """Execute rows in the order of asking, whatever their depth; see `Run`."""
        with self._turn:
            start = time.perf_counter()
            y = self._system.transform(x, theta, keys, stopped).y
            self._hardware_s += time.perf_counter() - start
        if len(y) < len(x):
            name = self._system.description.name
            raise PassCancelled(f"{name}: stopped after {len(y)} of {len(x)} rows")
        return y

    def cancel(self) -> None:
        """Do nothing: `stopped` is asked before every instrument call."""

    def hardware_s(self) -> float:
        """Return the time spent in the system so far, s."""
        return self._hardware_s


@dataclass(frozen=True)
class Share:
    """The samples of one training step that a micro-batch has: `count` from `first` on, of `of`.

    stopped: says that the step has failed, so that no further row may start.
    """

    first: int
    count: int
    of: int
    stopped: Callable[[], bool] = never


class DeviceMeasure:
    """measure(x, theta) -> y on one physical system; counts rows and numbers them.

    x (rows, x_size), theta (rows, theta_size), y (rows, y_size): tensors, 0..1 of the declared
    ranges, any dtype and device; y comes back in x's. Row i of this stream carries the key
    (stream, i, i * row_time_s + what was waited): simulated noise and drift follow from it alone.
    """

    def __init__(
        self, description: SystemDescription, run: Run, *, stream: int, first_row: int = 0
    ) -> None:
        """Give rows the keys of noise stream `stream` from `first_row` on."""
        self.description = description
        self.last_keys: Sequence[RowKey] = ()
        self._run = run
        self._stream = stream
        self._next = self._first = first_row
        self._waited_s = 0.0
        self._counting = threading.Lock()

    @property
    def rows(self) -> int:
        """Get how many rows have been measured."""
        return self._next - self._first

    @property
    def time_s(self) -> float:
        """Get the simulated time of the next row, s."""
        return self._next * self.description.row_time_s + self._waited_s

    def wait(self, seconds: float) -> None:
        """Declare that the bench stands idle for so long before the next row; between steps only.

        Nobody waits: the keys of later rows move. Raises ValueError unless finite and at least 0.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a wait of {seconds} s: must be finite and at least 0 s")
        self._waited_s += seconds

    def state_dict(self) -> dict[str, Any]:
        """Return which row is next, and how long the bench has stood idle; see `lab.stateful`."""
        return {"next": self._next, "waited_s": self._waited_s}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that row."""
        self._next, self._waited_s = state["next"], state["waited_s"]

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        """Measure; raises what the system raises (LimitError, DriverError, SystemFaulted, ...)."""
        self.last_keys = self.keys(self._next, len(x))
        y = self._run(*self._physical(x, theta), self.last_keys)
        self._next += len(x)
        return self._normalised(y, x)

    def part(self, share: Share) -> "DevicePart":
        """Return the view of a micro-batch of the step that begins now."""
        return DevicePart(self, share, self._next)

    def cancel(self) -> None:
        """Cancel what is being measured, from any thread; do not wait for its end."""
        self._run.cancel()

    def hardware_s(self) -> float:
        """Return the time that the hardware has spent on calls so far, s."""
        return self._run.hardware_s()

    def keys(self, first: int, count: int) -> Sequence[RowKey]:
        """Return the keys of `count` rows of the stream, from `first` on."""
        row_s = self.description.row_time_s
        return row_keys(self._stream, first, count, row_s, waited_s=self._waited_s)

    def measure_part(
        self, x: Tensor, theta: Tensor, keys: Sequence[RowKey], depth: int, share: Share, end: int
    ) -> Tensor:
        """Measure rows of a micro-batch; `end` is the row after the layer that they belong to."""
        physical = self._physical(x, theta)
        y = self._run(*physical, keys, depth=depth, stopped=share.stopped)
        with self._counting:
            self._next = max(self._next, end)
        return self._normalised(y, x)

    def _physical(self, x: Tensor, theta: Tensor) -> tuple[Array, Array]:
        d = self.description
        return d.x.to_physical(_array(x)), d.theta.to_physical(_array(theta))

    def _normalised(self, y: Array, x: Tensor) -> Tensor:
        return torch.from_numpy(self.description.y.to_normalised(y)).to(x)


class DevicePart:
    """A micro-batch's own view of a device for one step: its calls are the layers 0, 1, ...

    A row carries the key that it has in the unsplit step, where a layer measures all samples
    before the next layer measures any: its noise does not depend on how the step was split, nor
    on which micro-batch came first.
    """

    def __init__(self, device: DeviceMeasure, share: Share, first_row: int) -> None:
        """Measure the share of a step whose first row in the device's stream is `first_row`."""
        self.description = device.description
        self.last_keys: Sequence[RowKey] = ()
        self._device = device
        self._share = share
        self._layer_row = first_row
        self._depth = 0

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        """Measure the share's rows of the next layer; as `DeviceMeasure`.

        A layer may measure several rows a sample, as long as a sample's rows stand together;
        raises ValueError where rows and samples do not go together.
        """
        share = self._share
        rows_a_sample, rest = divmod(len(x), share.count)
        if rest:
            raise ValueError(f"{len(x)} rows do not belong to {share.count} samples")
        first, depth = self._layer_row + share.first * rows_a_sample, self._depth
        self._layer_row += share.of * rows_a_sample
        self._depth += 1
        self.last_keys = self._device.keys(first, len(x))
        return self._device.measure_part(x, theta, self.last_keys, depth, share, self._layer_row)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy().astype(np.float64)

"""The device as the trainer sees it: one callable, normalised tensors in and out.

The single place where normalised values become physical units and back.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from drivers.row_key import RowKey, row_keys
from drivers.spec import Array
from lab.systems.base import SystemDescription

Run = Callable[[Array, Array, Sequence[RowKey]], Array]
"""What executes rows: x, theta in physical units and the rows' keys -> y in physical units."""


class DeviceMeasure:
    """measure(x, theta) -> y on one physical system; counts rows and numbers them.

    x (rows, x_size), theta (rows, theta_size), y (rows, y_size): tensors, 0..1 of the declared
    ranges, any dtype and device; y comes back in x's. Row i of this stream carries the key
    (stream, i, i * row_time_s): simulated noise and drift follow from it alone.
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

    @property
    def rows(self) -> int:
        """Get how many rows have been measured."""
        return self._next - self._first

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        """Measure; raises what the system raises (LimitError, DriverError, SystemFaulted, ...)."""
        d = self.description
        self.last_keys = row_keys(self._stream, self._next, len(x), d.row_time_s)
        y = self._run(
            d.x.to_physical(_array(x)), d.theta.to_physical(_array(theta)), self.last_keys
        )
        self._next += len(x)
        return torch.from_numpy(d.y.to_normalised(y)).to(x)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy().astype(np.float64)

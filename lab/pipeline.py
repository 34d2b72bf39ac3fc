"""One training step, split into micro-batches whose digital work hides behind measurements.

In a network of several layers on one instrument the instrument idles while a layer's output is
turned into the next layer's input, and during the backward. With the batch in parts, each in a
thread of its own, it measures another part meanwhile. The parts' gradients are added up in the
parts' order, so a step does not depend on which came first; but for the rounding of these sums it
is the unsplit step.

Usable with any network of `PhysicalLayer`s that treats samples one by one (no batch norm), and
without the rest of the lab: what a part measures with comes from one function of its `Share`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from copy import deepcopy
from threading import Event
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from lab.measure import Share
from lab.micro_batches import NUMBERS, AutoMicroBatches
from lab.pat import PhysicalLayer, Physics

N = TypeVar("N", bound=nn.Module)
T = TypeVar("T")

Gradients = tuple[Tensor | None, ...]


class Pipeline(Generic[N]):
    """Take training steps with a network; a context manager that ends its threads.

    micro_batches: parts of a step, at least one sample each. With 1 a step is a plain forward and
    backward in the calling thread.
    """

    def __init__(
        self,
        network: N,
        share: Callable[[Share], Physics] | None,
        micro_batches: int | AutoMicroBatches,
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        """Split steps of `network`, whose layers keep their own measure for unsplit ones.

        share: gives what a part's layers measure with and are differentiated by; called in the
        parts' order before any begins. Its measure is called in a thread, and must raise once
        `Share.stopped` says so. None: steps are not split. cancel: called when a part has
        failed, to end what the others wait for.
        With `AutoMicroBatches` the layers' measure is timed from now on.
        """
        self._network = network
        self._share = share
        self._cancel = cancel
        number = 1 if share is None else micro_batches
        self._auto = number if isinstance(number, AutoMicroBatches) else None
        self._fixed = 1 if isinstance(number, AutoMicroBatches) else number
        self._replicas: list[N] = []
        self._pool: ThreadPoolExecutor | None = None
        if self._auto is not None:
            for layer in _physical_layers(network):
                layer.set_physics(self._auto.timed(layer.physics[0]))

    @property
    def micro_batches(self) -> int:
        """Get the number of parts of a full step; it may change while it is chosen."""
        return self._fixed if self._auto is None else self._auto.number

    def state_dict(self) -> dict[str, Any]:
        """Return the number of parts, None while it is not chosen; see `lab.stateful`."""
        chosen = self._auto is None or self._auto.decided
        return {"micro_batches": self.micro_batches if chosen else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the number that was chosen, without measuring again."""
        if self._auto is not None and state["micro_batches"] is not None:
            self._auto.decide(state["micro_batches"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the threads to end; between steps they are idle."""
        if self._pool is not None:
            self._pool.shutdown()

    def step(self, rows: Tensor, loss: Callable[[N, Tensor], tuple[Tensor, T]]) -> list[T]:
        """Add the gradients of the mean loss over `rows` to the parameters' .grad.

        rows (samples,): what the batch consists of, in any form that `loss` understands.
        loss(network, part of rows) -> (mean loss over the part, anything): called once a part, in
        threads; returns each part's anything, in the rows' order. If a part fails, its error is
        raised when all have ended, and .grad is as before.
        """
        if self._auto is None:
            return self._step(rows, loss)
        with self._auto.timing(len(rows)):
            return self._step(rows, loss)

    def _step(self, rows: Tensor, loss: Callable[[N, Tensor], tuple[Tensor, T]]) -> list[T]:
        parts = min(self.micro_batches, len(rows))
        if parts <= 1 or self._share is None:
            value, seen = loss(self._network, rows)
            value.backward()
            return [seen]
        outcomes = self._in_threads(rows.tensor_split(parts), self._share, loss)
        self._add_up([gradients for gradients, _ in outcomes])
        return [seen for _, seen in outcomes]

    def _in_threads(
        self,
        parts: Sequence[Tensor],
        share: Callable[[Share], Physics],
        loss: Callable[[N, Tensor], tuple[Tensor, T]],
    ) -> list[tuple[Gradients, T]]:
        failed = Event()
        prepared = list(self._prepare(parts, share, failed))
        pool = self._threads()
        of = sum(len(part) for part in parts)
        futures: list[Future[tuple[Gradients, T]]] = []
        try:
            for network, part in zip(prepared, parts, strict=True):
                futures.append(pool.submit(_gradients, network, part, len(part) / of, loss))
            _raise_first_error(wait(futures, return_when=FIRST_EXCEPTION).done, futures)
        except BaseException:
            failed.set()
            self._cancel()
            wait(futures)
            raise
        return [future.result() for future in futures]

    def _prepare(
        self, parts: Sequence[Tensor], share: Callable[[Share], Physics], failed: Event
    ) -> Iterator[N]:
        """Give each part its replica of the network and its share of the measurements."""
        while len(self._replicas) < len(parts):
            self._replicas.append(replica(self._network))
        first, of = 0, sum(len(part) for part in parts)
        for network, part in zip(self._replicas, parts, strict=False):
            physics = share(Share(first, len(part), of, failed.is_set))
            for layer in _physical_layers(network):
                layer.set_physics(*physics)
            first += len(part)
            yield network

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            # it starts no more than are needed; torch threads of their own would only take the
            # cores from each other
            most = max(self._fixed, *NUMBERS)
            self._pool = ThreadPoolExecutor(most, "micro-batch", torch.set_num_threads, (1,))
        return self._pool

    def _add_up(self, gradients: Sequence[Gradients]) -> None:
        """Add the parts' gradients, in the parts' order, to the parameters' own."""
        for parameter, *of_parts in zip(_trained(self._network), *gradients, strict=True):
            for gradient in of_parts:
                if gradient is not None:
                    sum_ = parameter.grad
                    parameter.grad = gradient if sum_ is None else sum_ + gradient


def replica(network: N) -> N:
    """Return a network with the same parameters, buffers and physics, and its own layer state.

    So two threads can run a forward and a backward at once. Raises ValueError for a twin that has
    trainable parameters, which would be exchanged during a forward.
    """
    memo: dict[int, Any] = {}
    for module in network.modules():
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        # a tensor in an attribute is the state of a layer: the next forward replaces it
        state = (value for value in vars(module).values() if isinstance(value, Tensor))
        memo.update((id(tensor), tensor) for tensor in (*own, *state))
    for layer in _physical_layers(network):
        if any(parameter.requires_grad for parameter in layer.physics[1].parameters()):
            raise ValueError("a twin must be frozen before a step can be split")
        memo[id(layer.physics)] = layer.physics
    return deepcopy(network, memo)


def _gradients(
    network: N, rows: Tensor, weight: float, loss: Callable[[N, Tensor], tuple[Tensor, T]]
) -> tuple[Gradients, T]:
    """Return the gradients of a part's share of the loss, and what else it gave."""
    value, seen = loss(network, rows)
    return torch.autograd.grad(value * weight, _trained(network), allow_unused=True), seen


def _raise_first_error(done: set[Future[T]], futures: Sequence[Future[T]]) -> None:
    """Raise the error of the first part that has failed, if any has."""
    for future in futures:
        if future in done:
            future.result()


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _physical_layers(network: nn.Module) -> list[PhysicalLayer]:
    return [module for module in network.modules() if isinstance(module, PhysicalLayer)]

"""What a part of a training tells of itself, so that another process can go on from there."""

from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """A part whose future depends on its past; torch's modules and optimisers are such.

    The state consists of tensors and plain values (numbers, text, lists, dictionaries), so that it
    can be read without running any code. Later steps may change its tensors: who keeps a state
    copies it (`copied`).
    """

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the part's future depends on and its making does not give."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Go on from the state of a part that was made in the same way."""
        ...


class Stateless:
    """A part without a memory."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Do nothing."""


class TorchThreads:
    """The number of threads of torch's own, on which the last bits of a sum may depend."""

    def state_dict(self) -> dict[str, Any]:
        """Return this thread's number."""
        return {"number": torch.get_num_threads()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take that number in this thread."""
        torch.set_num_threads(state["number"])


def copied(state: Any) -> Any:
    """Return a state whose tensors nobody else changes; those in tuples are taken to be such."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [copied(value) for value in state]
    return state

"""Online refit: the twin keeps learning from the rows that training measures anyway.

A candidate copy learns; the twin that training uses changes only when the candidate predicts
held-out recent rows at least as well. So a refit never makes the twin worse there.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from lab.pat import Measure
from twins.base import DigitalTwin, frozen
from twins.fitting import MeasuredRows, weighted_error


@dataclass(frozen=True)
class RefitSettings:
    """How the twin keeps learning.

    updates: per training step; rate: Adam's learning rate; batch: rows of one update;
    memory: measured calls kept; kept: at most so many rows of each, evenly taken; held_out: every
    n-th row of a call is for the gate only; gate_every: updates between gates; floor: see
    `twins.fitting.weighted_error`.
    """

    updates: int = 2
    rate: float = 2e-3
    batch: int = 128
    memory: int = 64
    kept: int = 64
    held_out: int = 8
    gate_every: int = 10
    floor: float = 1.0


class OnlineRefit:
    """Record measured rows, update a candidate twin, and let it in when it is no worse."""

    def __init__(
        self,
        twin: DigitalTwin,
        measure: Measure,
        *,
        seed: int,
        settings: RefitSettings | None = None,
    ) -> None:
        """Watch `measure`; `twin` is changed in place by accepted refits."""
        self.settings = settings or RefitSettings()
        self._twin = twin
        self._measure = measure
        self._candidate = deepcopy(twin).requires_grad_(True)
        self._optimiser = self._new_optimiser()
        self._train: deque[MeasuredRows] = deque(maxlen=self.settings.memory)
        self._gate: deque[MeasuredRows] = deque(maxlen=self.settings.memory)
        self._arrived: list[tuple[tuple[int, int], MeasuredRows]] = []
        self._generator = torch.Generator().manual_seed(seed)
        self._rows = 0
        self.updates = self.accepted = self.rolled_back = 0

    def _new_optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self._candidate.fit_groups(self.settings.rate))

    def state_dict(self) -> dict[str, Any]:
        """Return what is learnt and remembered, but for the twin itself; see `lab.stateful`."""
        return {
            "candidate": self._candidate.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "train": _packed(self._train),
            "gate": _packed(self._gate),
            "generator": self._generator.get_state(),
            "rows": self._rows,
            "counts": [self.updates, self.accepted, self.rolled_back],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._candidate.load_state_dict(state["candidate"])
        self._optimiser = self._new_optimiser()
        self._optimiser.load_state_dict(state["optimiser"])
        for memory, kept in ((self._train, state["train"]), (self._gate, state["gate"])):
            memory.clear()
            memory.extend(_unpacked(kept))
        self._arrived.clear()
        self._generator.set_state(state["generator"])
        self._rows = state["rows"]
        self.updates, self.accepted, self.rolled_back = state["counts"]

    def measure(self, x: Tensor, theta: Tensor) -> Tensor:
        """Measure, and keep the rows: x (rows, x_size), theta (rows, theta_size) -> y."""
        y = self._measure(x, theta)
        self._keep(_copied(x, theta, y))
        return y

    def part(self, measure: Measure, first: int) -> Measure:
        """Watch `measure` for one step of a micro-batch whose samples begin at `first`.

        Its calls are the layers 0, 1, ...; parts may measure at once, in threads. `step` brings
        what they measured into the order of the unsplit step.
        """
        depths = itertools.count()

        def watched(x: Tensor, theta: Tensor) -> Tensor:
            y = measure(x, theta)
            self._arrived.append(((next(depths), first), _copied(x, theta, y)))
            return y

        return watched

    def _keep_arrived(self) -> None:
        """Keep what the parts of a step measured, each layer's rows as one call."""
        arrived = sorted(self._arrived, key=itemgetter(0))
        self._arrived.clear()
        for _, calls in itertools.groupby(arrived, key=lambda call: call[0][0]):
            self._keep(_join(rows for _, rows in calls))

    def _keep(self, rows: MeasuredRows) -> None:
        """Put rows of one call into the memory, every n-th aside for the gate."""
        rows = rows[:: -(-len(rows) // self.settings.kept)]
        number = torch.arange(self._rows, self._rows + len(rows))
        held = number % self.settings.held_out == self.settings.held_out - 1
        self._rows += len(rows)
        if not held.all():
            self._train.append(rows[~held])
        if held.any():
            self._gate.append(rows[held])

    def step(self) -> None:
        """Update the candidate, and pass the gate when it is due; no hardware is used."""
        self._keep_arrived()
        if self._train:
            known = _join(self._train)
            for _ in range(self.settings.updates):
                self._update(known)

    def catch_up(self, updates: int = 200) -> None:
        """Update the candidate at once on what is remembered, gates included."""
        if self._train:
            known = _join(self._train)
            for _ in range(updates):
                self._update(known)

    def _update(self, known: MeasuredRows) -> None:
        pick = torch.randint(len(known), (self.settings.batch,), generator=self._generator)
        rows = known[pick].to(self._twin)
        self._optimiser.zero_grad()
        loss = weighted_error(self._candidate(rows.x, rows.theta), rows.y, self.settings.floor)
        loss.backward()
        self._optimiser.step()
        self.updates += 1
        if self.updates % self.settings.gate_every == 0 and self._gate:
            self._pass_gate()

    @torch.no_grad()
    def _pass_gate(self) -> None:
        rows = _join(self._gate).to(self._twin)
        before = weighted_error(self._twin(rows.x, rows.theta), rows.y, self.settings.floor)
        after = weighted_error(self._candidate(rows.x, rows.theta), rows.y, self.settings.floor)
        if after <= before:
            self._twin.load_state_dict(self._candidate.state_dict())
            frozen(self._twin)
            self.accepted += 1
        else:
            # the optimiser's momentum led here: it goes too, above all if it is not finite
            self._candidate.load_state_dict(self._twin.state_dict())
            self._optimiser = self._new_optimiser()
            self.rolled_back += 1


def _copied(x: Tensor, theta: Tensor, y: Tensor) -> MeasuredRows:
    return MeasuredRows(*(t.detach().clone() for t in (x, theta, y)))


def _packed(calls: Iterable[MeasuredRows]) -> dict[str, Any]:
    """Return the rows of several calls in few tensors, which are quicker to write than many."""
    lengths = [len(rows) for rows in calls]
    joined = tuple(vars(_join(calls)).values()) if lengths else ()
    return {"lengths": lengths, "x, theta, y": joined}


def _unpacked(packed: dict[str, Any]) -> Iterator[MeasuredRows]:
    """Yield the calls of `_packed`."""
    first = 0
    for length in packed["lengths"]:
        rows = slice(first, first + length)
        yield MeasuredRows(*(values[rows] for values in packed["x, theta, y"]))
        first += length


def _join(calls: Iterable[MeasuredRows]) -> MeasuredRows:
    """Return all rows of several calls as one."""
    parts = list(calls)
    return MeasuredRows(*(torch.cat([getattr(c, n) for c in parts]) for n in ("x", "theta", "y")))

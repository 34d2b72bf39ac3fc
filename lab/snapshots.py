"""When a training's state is copied, when it is written, and how a training goes on from it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from lab.checkpoints import Checkpoint, CheckpointFolder
from lab.stateful import Stateful, copied

_COPY_EVERY_S = 1.0
_WORTH = 200  # times as long as a copy takes, at least, until the next one


class Snapshots:
    """Copy the state of a run between its steps, and keep a copy in a file now and then.

    A step that is broken off leaves some parts changed and others not; only between steps does
    all that is stored belong together. So a run that is stopped or fails goes on from the last
    copy: at most a second (where a copy takes long, 200 times as long) and one step are done again.
    """

    def __init__(
        self,
        parts: Mapping[str, Stateful],
        about: Mapping[str, Any],
        folder: CheckpointFolder | None,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
        comparable: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        """Take in `parts`; about: what the run is. Without a folder nothing is copied.

        comparable: see `CheckpointFolder.matching`.
        """
        self._parts, self._about = parts, about
        self._folder, self._every_s = folder, every_s
        self._clock, self._comparable = clock, comparable
        self._copy: tuple[int, dict[str, Any]] | None = None
        self._copied_s = self._written_s = clock()
        self._copy_every_s = _COPY_EVERY_S
        self._written = True

    def go_on(self) -> Checkpoint | None:
        """Bring the parts to the newest good checkpoint and return it, None without one.

        Raises CheckpointRefused for the checkpoint of another run.
        """
        if self._folder is None:
            return None
        found = self._folder.matching(self._about, self._comparable)
        if found is None:
            return None
        for name, part in self._parts.items():
            part.load_state_dict(found.state[name])
        return found

    def between_steps(self, step: int) -> None:
        """Copy and write what is due after so many steps."""
        if self._folder is None:
            return
        now = self._clock()
        due = now - self._written_s >= self._every_s
        if due or self._copy is None or now - self._copied_s >= self._copy_every_s:
            self.copy(step)
        if due:
            self.write()

    def copy(self, step: int) -> None:
        """Copy the state after so many steps."""
        if self._folder is None or (self._copy is not None and self._copy[0] == step):
            return
        began = self._clock()
        state = {name: copied(part.state_dict()) for name, part in self._parts.items()}
        self._copy = step, state
        self._copied_s = self._clock()
        self._copy_every_s = max(_COPY_EVERY_S, _WORTH * (self._copied_s - began))
        self._written = False

    def write(self) -> None:
        """Write the last copy, unless it is written already."""
        if self._folder is None or self._copy is None or self._written:
            return
        step, state = self._copy
        self._written = self._folder.keep(step, self._about, state)
        self._written_s = self._clock()

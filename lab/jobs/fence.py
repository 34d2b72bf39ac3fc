"""Rows that jobs measure from elsewhere: only those of the attempt that counts.

A worker that was frozen for a while may wake when another one has taken its job over. Its rows are
refused before they reach an instrument, and those that still wait are cancelled.
"""

import asyncio
import uuid
from contextlib import suppress
from dataclasses import replace

from lab.errors import Superseded, UnknownName
from lab.jobs.store import Store
from lab.measurement import ForwardPass, Measurement
from lab.recording.recorder import RowRecorder
from lab.scheduling.scheduler import HardwareScheduler


class Fence:
    """The way from the network to the scheduler; for its event loop."""

    def __init__(
        self, store: Store, scheduler: HardwareScheduler, recorder: RowRecorder | None = None
    ) -> None:
        """Ask `store` whose attempt counts."""
        self._store, self._scheduler, self._recorder = store, scheduler, recorder
        self._under_way: dict[str, dict[str, int]] = {}  # attempts, by job and pass

    async def measure(self, forward_pass: ForwardPass) -> Measurement:
        """Measure a pass; raise Superseded if it is of an attempt that does not count any more.

        Raises what `HardwareScheduler.submit` raises, and DatabaseAway.
        """
        if not forward_pass.attempt:
            return await self._scheduler.submit(forward_pass)
        job, attempt = forward_pass.job, forward_pass.attempt
        if not await asyncio.to_thread(self._store.holds, job, attempt):
            raise Superseded(f"job {job}: attempt {attempt} does not count any more")
        ours = replace(forward_pass, pass_id=forward_pass.pass_id or uuid.uuid4().hex)
        passes = self._under_way.setdefault(job, {})
        await self._cancel_older(passes, attempt)
        passes[ours.pass_id] = attempt
        try:
            measurement = await self._scheduler.submit(ours)
        finally:
            del passes[ours.pass_id]
            if not passes and self._under_way.get(job) is passes:
                del self._under_way[job]
        if self._recorder is not None:
            self._recorder.add(ours, measurement)
        return measurement

    async def _cancel_older(self, passes: dict[str, int], attempt: int) -> None:
        for pass_id in [p for p, of in passes.items() if of < attempt]:
            with suppress(UnknownName):  # it has just ended
                await self._scheduler.cancel(pass_id)

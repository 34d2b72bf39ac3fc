"""Rows that jobs measure from elsewhere: only those of the attempt that counts, and each once.

A worker that was frozen for a while may wake when another one has taken its job over. Its rows are
refused before they reach an instrument, and those that still wait are cancelled. What the other one
asks for again is not measured again.
"""

import asyncio
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace

from lab.errors import LabError, Superseded, UnknownName
from lab.jobs.store import Store
from lab.measurement import ForwardPass, Measurement
from lab.recording.known_rows import KnownRows, PartlyKnown
from lab.recording.recorder import RowRecorder
from lab.scheduling.scheduler import HardwareScheduler

_KEPT_S = 600.0  # what is known of a job that measures nothing any more
_GO_ON = ("train", "fit")  # the rows of jobs that look at a device are to be of one time


@dataclass
class _Reading:
    """What is known of a job's rows for one attempt; asked_s: when it was last asked for."""

    attempt: int
    rows: asyncio.Future[KnownRows]
    asked_s: float = field(default_factory=time.monotonic)


class Fence:
    """The way from the network to the scheduler; for its event loop."""

    def __init__(
        self, store: Store, scheduler: HardwareScheduler, recorder: RowRecorder | None = None
    ) -> None:
        """Ask `store` whose attempt counts."""
        self._store, self._scheduler, self._recorder = store, scheduler, recorder
        self._under_way: dict[str, dict[str, int]] = {}  # attempts, by job and pass
        self._known: dict[str, _Reading] = {}

    async def measure(self, forward_pass: ForwardPass) -> Measurement:
        """Measure a pass; raise Superseded if it is of an attempt that does not count any more.

        Raises what `HardwareScheduler.submit` raises, and DatabaseAway.
        """
        if not forward_pass.attempt:
            return await self._scheduler.submit(forward_pass)
        job, attempt = forward_pass.job, forward_pass.attempt
        known = await self._known_rows(job, attempt)
        if not await asyncio.to_thread(self._store.holds, job, attempt):
            raise _superseded(job, attempt)
        pass_id = forward_pass.pass_id or uuid.uuid4().hex
        ours = replace(forward_pass, pass_id=pass_id, persistent=True)
        await self._cancel_older(job, attempt)
        owned = known.of(ours)
        passes = self._under_way.setdefault(job, {})
        passes[ours.pass_id] = attempt
        try:
            measured = await self._scheduler.submit(owned.rest)
        except (LabError, asyncio.CancelledError) as error:
            self._record(owned, error)
            raise
        finally:
            del passes[ours.pass_id]
            if not passes and self._under_way.get(job) is passes:
                del self._under_way[job]
        self._record(owned, measured)
        return owned.whole(measured)

    def _record(self, owned: PartlyKnown, ended: Measurement | BaseException) -> None:
        if isinstance(ended, asyncio.CancelledError) and ended.__cause__ is not None:
            ended = ended.__cause__
        rest = owned.measured(ended)
        if rest and self._recorder is not None:
            self._recorder.add(*rest)

    async def _known_rows(self, job: str, attempt: int) -> KnownRows:
        """Return what has been measured of a job before this attempt; read once."""
        now_s = time.monotonic()
        found = self._known.get(job)
        if found is None or found.attempt < attempt:
            reading = asyncio.ensure_future(self._known_before(job, attempt))
            found = self._known[job] = _Reading(attempt, reading)
            self._known = {j: r for j, r in self._known.items() if now_s - r.asked_s < _KEPT_S}
        found.asked_s = now_s
        try:
            return await asyncio.shield(found.rows)
        except Exception:
            if self._known.get(job) is found:
                del self._known[job]
            raise

    async def _known_before(self, job: str, attempt: int) -> KnownRows:
        """Read what has been measured of a job, also by passes that now end; raise Superseded."""
        if not await asyncio.to_thread(self._store.holds, job, attempt):
            raise _superseded(job, attempt)
        await self._cancel_older(job, attempt)
        return await asyncio.to_thread(self._read_known, job)

    def _read_known(self, job: str) -> KnownRows:
        if self._recorder is None:
            return KnownRows()
        record = self._store.job(job)
        if record.kind not in _GO_ON:
            return KnownRows()
        return self._recorder.known(job, record.continued_s or 0.0)

    async def _cancel_older(self, job: str, attempt: int) -> None:
        passes = self._under_way.get(job, {})
        for pass_id in [p for p, of in passes.items() if of < attempt]:
            with suppress(UnknownName):  # it has just ended
                await self._scheduler.cancel(pass_id)


def _superseded(job: str, attempt: int) -> Superseded:
    return Superseded(f"job {job}: attempt {attempt} does not count any more")

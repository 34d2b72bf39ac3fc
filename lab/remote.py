"""Measure on the bench of another machine, through its service; for trainers that run elsewhere.

    with RemoteRun("http://127.0.0.1:8000", "optics") as run:
        apparatus = remote_apparatus(run)
        result = train(config, dataset, fitted, apparatus)

Rows go there and back bit for bit, and carry the keys that they would have here; so a training
ends with the same parameters wherever it runs.
"""

import io
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import quote, urlencode

import numpy as np
from torch import nn

from drivers.row_key import RowKey
from drivers.spec import Array
from lab.apparatus import Apparatus
from lab.calls import API, ServiceError, asking_headers
from lab.client import checked_name
from lab.errors import ConfigError, DatabaseAway, PassCancelled, QueueFull, SystemClosed
from lab.measure import DeviceMeasure, DevicePart
from lab.npy import UNREADABLE
from lab.remote_answers import RemoteSystem, raise_named, read_system
from lab.remote_lines import BrokenOff, Call, LineLost, RemoteLines
from lab.secret import chosen_secret
from lab.systems.base import never
from lab.tries import Tries

_NPZ = "application/x-npz"
_PART_BYTES = 8 * 2**20  # of a pass: half of what a service takes
_AWAY = (502, 503, 504)  # what stands between here and a service says of one that is not there


class RemoteRun:
    """Execute rows of one client on a system of another machine (a `lab.measure.Run`).

    Thread-safe: every call has a connection of its own. Close it, or use `with`.
    """

    def __init__(
        self,
        url: str,
        system: str,
        *,
        secret: str | None = None,
        client: str | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        job: str = "",
        attempt: int = 0,
        patience_s: float = 60.0,
        stopped: Callable[[], bool] = never,
    ) -> None:
        """Measure on `system` of the service at `url`; nothing is asked of it yet.

        secret: the service's (default: the environment's). client (default: as `lab.client`),
        priority, deadline_s, job: as in `lab.measurement.ForwardPass`. attempt: which attempt at
        the job this is, for the service. patience_s: for so long a service that does not answer is
        tried again. Once `stopped` says so no pass is sent any more. Raises ConfigError for an
        impossible address, name or secret.
        """
        self.url, self.system = url.rstrip("/"), system
        headers = asking_headers(checked_name(client), chosen_secret(secret))
        self._lines = RemoteLines(self.url, headers)
        self._path = f"{API}/systems/{quote(system, safe='')}"
        options = {"priority": priority, "deadline_s": deadline_s, "job": job, "attempt": attempt}
        self._options = {key: value for key, value in options.items() if value not in (None, "")}
        self._patience_s = patience_s
        self._stopped = stopped
        self._calls: set[Call] = set()
        self._counting = threading.Lock()
        self._hardware_s = 0.0

    def close(self) -> None:
        """Close the connections; not while rows are measured."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(
        self,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        *,
        depth: int = 0,
        stopped: Callable[[], bool] = never,
    ) -> Array:
        """Return y in physical units; large passes go in parts.

        Waits for a queue that is full as long as it says. A pass whose answer was lost is sent
        again, and its rows may be measured twice; on a simulated bench their keys make them the
        same. Raises what the system raises; PassCancelled after a `cancel` or once `stopped` says
        so; ServiceError for a service that was away longer than `patience_s`, or asks for another
        secret (status 401).
        """
        if len(keys) != len(x) or len(theta) != len(x):
            raise ValueError(
                f"{self.system}: {len(x)} rows of x, {len(theta)} of theta, {len(keys)} row keys"
            )
        path = f"{self._path}/passes?{urlencode({**self._options, 'depth': depth})}"
        rows = max(1, _PART_BYTES // max(1, (x[:1].nbytes + theta[:1].nbytes)))
        call = Call()
        self._calls.add(call)
        try:
            parts = [
                self._measured(call, path, x[part], theta[part], keys[part], stopped)
                for part in (slice(i, i + rows) for i in range(0, max(1, len(x)), rows))
            ]
        except BrokenOff:
            raise PassCancelled(f"pass on {self.system} at {self.url} was cancelled") from None
        finally:
            self._calls.discard(call)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def cancel(self) -> None:
        """Cancel the calls that are under way, from any thread, without waiting for their end.

        Each one's connection ends, and with it the pass: from the moment on at which the service
        has noticed, no further row starts.
        """
        for call in tuple(self._calls):  # at once: the others' threads change the set
            call.break_off()

    def hardware_s(self) -> float:
        """Return the time from each pass's first row to its last one's end, summed, s."""
        return self._hardware_s

    def describe(self) -> RemoteSystem:
        """Return what the service says of the system; raise UnknownName, and as a call does."""
        return read_system(self._answer(Call(), "GET", self._path, b"", never))

    def _measured(
        self,
        call: Call,
        path: str,
        x: Array,
        theta: Array,
        keys: Sequence[RowKey],
        stopped: Callable[[], bool],
    ) -> Array:
        content = self._answer(call, "POST", path, _as_npz(x, theta, keys), stopped)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                y: Array = arrays["y"]
                seconds = float(arrays["finished_s"]) - float(arrays["started_s"])
        except UNREADABLE as error:
            raise ServiceError(f"{self.url}: its answer is no measurement ({error})") from error
        with self._counting:
            self._hardware_s += seconds
        return y

    def _answer(
        self, call: Call, method: str, path: str, body: bytes, stopped: Callable[[], bool]
    ) -> bytes:
        """Return the content of a good answer, as often as it has to be asked for."""
        tries = Tries(self._patience_s)
        while True:
            # after the call was entered into `_calls`: who cancels later finds it there
            if self._stopped() or stopped() or call.is_broken:
                raise PassCancelled(f"pass on {self.system} at {self.url} ended before it was sent")
            try:
                return self._once(call, method, path, body)
            except QueueFull as full:
                tries.start_over()
                call.wait(full.retry_after_s)
            except (LineLost, SystemClosed, DatabaseAway, ServiceError) as error:
                if isinstance(error, ServiceError) and not _is_away(error):
                    raise
                if not tries.wait(call.wait):
                    raise self._gone(error) from error

    def _once(self, call: Call, method: str, path: str, body: bytes) -> bytes:
        headers = {"Content-Type": _NPZ, "Accept": _NPZ} if body else {}
        status, content = self._lines.request(call, method, path, body, headers)
        if status != 200:
            raise_named(status, content, self.url)
        return content

    def _gone(self, error: Exception) -> ServiceError:
        return ServiceError(f"no answer from {self.url} for {self._patience_s:g} s ({error})")


def remote_apparatus(run: RemoteRun) -> Apparatus:
    """Return the system of a run as training sees it; asks its service what it is like.

    The oracle is a ConfigError: physics, simulated or not, stay where they are. Raises as
    `RemoteRun.describe`.
    """
    description = run.describe().description

    def open_oracle(device: DeviceMeasure | DevicePart) -> nn.Module:
        raise ConfigError(
            f"method: 'ideal' needs the simulated bench here, and {run.system} is at {run.url}"
        )

    return Apparatus(
        description=description,
        open_device=lambda stream, first: DeviceMeasure(
            description, run, stream=stream, first_row=first
        ),
        open_oracle=open_oracle,
    )


def _as_npz(x: Array, theta: Array, keys: Sequence[RowKey]) -> bytes:
    file = io.BytesIO()
    numbers: dict[str, Any] = {
        "key_stream": np.array([key.stream for key in keys], dtype=np.int64),
        "key_index": np.array([key.index for key in keys], dtype=np.int64),
        "key_time_s": np.array([key.time_s for key in keys], dtype=np.float64),
    }
    np.savez(file, x=x, theta=theta, **numbers)
    return file.getvalue()


def _is_away(error: ServiceError) -> bool:
    """Say whether an error answer is not the service's own: those say what is wrong."""
    return error.status in _AWAY and not error.problem

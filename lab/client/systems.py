"""The systems of a service: what they are, rows that they measure, and who may use them."""

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lab.calls import PATIENT_TIMEOUT, Calls
from lab.errors import QueueFull
from lab.held_reservation import HeldReservation

if TYPE_CHECKING:
    from lab.client.client import Client

_NPZ = "application/x-npz"


class SystemCalls:
    """Describe, measure and reserve systems; a part of `lab.client.Client`."""

    name: str
    _calls: Calls
    _another: "Callable[[], Client]"

    def systems(self) -> list[dict[str, Any]]:
        """List the systems: arrays with unit, range and shape; health and duty cycle."""
        return self._calls.listed("/systems")

    def system(self, name: str) -> dict[str, Any]:
        """Describe one system; raise UnknownName."""
        return self._calls.answer("GET", f"/systems/{name}")

    def recover(self, system: str) -> dict[str, Any]:
        """Restart a faulted or stopped system and return its status; raise what that raised."""
        return self._calls.answer("POST", f"/systems/{system}/recover", timeout=PATIENT_TIMEOUT)

    def stop(self) -> dict[str, Any]:
        """Put every system into its safe state at once, whoever holds it, and out of use.

        Returns `confirmed`, and `systems` with each instrument's outcome: "safe", or why that is
        not confirmed. `recover` takes a system into use again.
        """
        return self._calls.answer("POST", "/stop", timeout=PATIENT_TIMEOUT)

    def measure(
        self,
        system: str,
        x: ArrayLike,
        theta: ArrayLike,
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        timeout_s: float | None = None,
        repeatable: bool = True,
        on_fault: Literal["wait", "fail"] = "wait",
        reservation: int | None = None,
        patience_s: float = 60.0,
    ) -> dict[str, Any]:
        """Measure rows: x (rows, ...) and theta (rows, ...) in physical units.

        Options as in `lab.measurement.ForwardPass`. patience_s: for so long a full queue is
        waited for and asked again, as it says; 0 raises QueueFull at once.

        Returns arrays with one entry a row (y, saturated, retried, out_of_sync, shots, row_s),
        and pass_id, system, calibration, submitted_s, started_s and finished_s. Raises
        QueueFull, DeadlineMissed, PassTimeout, ReservationLost, SystemFaulted, ServiceError
        (among them refused values, status 422, and failed instruments, 502 and 504), ...
        """
        file = io.BytesIO()
        np.savez(file, x=np.asarray(x), theta=np.asarray(theta))
        options = {
            "priority": priority,
            "deadline_s": deadline_s,
            "timeout_s": timeout_s,
            "repeatable": repeatable,
            "on_fault": on_fault,
            "reservation": reservation,
        }
        response = self._once_let_in(
            patience_s,
            f"/systems/{system}/passes",
            params={name: value for name, value in options.items() if value is not None},
            content=file.getvalue(),
            headers={"Content-Type": _NPZ, "Accept": _NPZ},
            timeout=PATIENT_TIMEOUT,
        )
        with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
            return {name: _unwrapped(arrays[name]) for name in arrays.files}

    def queue(self, system: str, limit: int = 100) -> dict[str, Any]:
        """Return who runs and waits on a system, the next to finish first, with estimates."""
        return self._calls.answer("GET", f"/systems/{system}/queue", params={"limit": limit})

    def reserve(
        self, system: str, ttl_s: float = 30.0, owner: str | None = None
    ) -> HeldReservation:
        """Reserve a system for ttl_s seconds (1 to 3600) from now and from each heartbeat.

        As a context manager it sends the heartbeats and releases the system at the end. Raises
        UnknownName, Conflict while it is reserved, ConfigError for a ttl_s out of range.
        """
        body = {"ttl_s": ttl_s, "owner": self.name if owner is None else owner}
        path = f"/systems/{system}/reservation"
        granted = self._calls.answer("POST", path, json=body, timeout=PATIENT_TIMEOUT)
        # a client serves one thread, and the heartbeats have their own
        return HeldReservation(granted, self._another)

    def heartbeat(self, system: str, number: int) -> dict[str, Any]:
        """Let a reservation live on and return it; raise ReservationLost, UnknownName."""
        return self._calls.answer("POST", f"/systems/{system}/reservation/{number}/heartbeat")

    def release(self, system: str, number: int) -> None:
        """End a reservation and the passes under it; raise ReservationLost, UnknownName."""
        self._calls.call("DELETE", f"/systems/{system}/reservation/{number}")

    def set_calibration(
        self, system: str, name: str, reservation: int | None = None
    ) -> dict[str, Any]:
        """Name the calibration in force and return the system's status.

        A reserved system takes it from whoever names the reservation's number only: raises
        Conflict, ReservationLost, UnknownName.
        """
        body = {"name": name, "reservation": reservation}
        return self._calls.answer("PUT", f"/systems/{system}/calibration", json=body)

    def _once_let_in(self, patience_s: float, path: str, **options: Any) -> httpx.Response:
        """POST until the queue has room; raise QueueFull once patience_s would be over."""
        until = time.monotonic() + patience_s
        while True:
            try:
                return self._calls.call("POST", path, **options)
            except QueueFull as full:
                if time.monotonic() + full.retry_after_s > until:
                    raise
                time.sleep(full.retry_after_s)


def _unwrapped(array: NDArray[Any]) -> Any:
    return array if array.ndim else array.item()

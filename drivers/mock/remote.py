"""A simulated rig in another process (`pnnlab mock`), as its clients see it."""

import json
from collections.abc import Sequence
from typing import Any

import httpx

from drivers.errors import ProtocolError
from drivers.mock.faults import FaultOrder
from drivers.mock.rig import Rig
from drivers.row_key import RowKey
from drivers.wires.http import exchange

_AT_ONCE = 1000  # keys in one call, about 50 kB
TIMEOUT_S = 2.0


class RemoteRig(Rig):
    """The admin interface of a rig whose instruments are on sockets; one thread at a time.

    Neither plant nor instruments are here. Nothing is sent before the first call.
    """

    def __init__(self, name: str, client: httpx.Client) -> None:
        """Talk about the rig `name` to the admin interface that `client` is for."""
        super().__init__(None, {})
        self._name = f"rig {name}"
        self._path = f"/rigs/{name}"
        self._client = client
        self._hears_ahead = False
        self._told_none = False
        # what the other side still expects: keys of this pass from `_at` to before `_until`
        self._pass: Sequence[RowKey] = ()
        self._at = self._until = 0

    @property
    def hears_ahead(self) -> bool:
        """Whether it takes the keys of a whole pass; known from the first call on."""
        return self._hears_ahead

    def announce(self, key: RowKey) -> None:
        """Tell which row comes next; raises a DriverError."""
        self.announce_rows([key])

    def announce_rows(self, keys: Sequence[RowKey], coming: Sequence[RowKey] = ()) -> None:
        """Tell which rows come next, and once with them what follows in their pass.

        coming: the same object for all calls of one pass. Raises a DriverError.
        """
        if self._pass is coming and self._expects(keys):
            self._at += len(keys)
            return
        if not keys and self._told_none:
            return
        first = _place(keys, coming) if self._hears_ahead else None
        if first is None:
            self._tell(keys)
            return
        until = min(first + max(_AT_ONCE, len(keys)), len(coming))
        self._tell(coming[first:until])
        self._pass, self._at, self._until = coming, first + len(keys), until

    def arm(self, order: FaultOrder) -> None:
        """Arm a fault there; raises InstrumentRefused if there is none such, or a DriverError."""
        self._ask("POST", "/faults", {**vars(order), "fault": order.fault.value})

    def clear_faults(self) -> None:
        """Disarm every fault there; raises a DriverError."""
        self._ask("DELETE", "/faults")

    def states(self) -> dict[str, dict[str, Any]]:
        """Return each instrument's counters and whether it is `safe`; raises a DriverError."""
        return self._ask("GET", "")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _expects(self, keys: Sequence[RowKey]) -> bool:
        """Say whether the other side takes just these keys for the next rows."""
        end = self._at + len(keys)
        return bool(keys) and end <= self._until and _same(self._pass, self._at, keys)

    def _tell(self, keys: Sequence[RowKey]) -> None:
        self._pass, self._at, self._until = (), 0, 0
        self._told_none = False  # even if the call fails
        rows = [(key.stream, key.index, key.time_s) for key in keys]
        self._hears_ahead = bool(self._ask("POST", "/keys", {"keys": rows})["ahead"])
        self._told_none = not keys

    def _ask(self, method: str, path: str, data: object = None) -> dict[str, Any]:
        request = self._client.build_request(method, self._path + path, json=data)
        answer = exchange(self._client, request, name=self._name, asked=f"{method} {request.url}")
        try:
            found = json.loads(answer)
        except ValueError as error:
            raise ProtocolError(self._name, f"{request.url}: answered {answer[:80]!r}") from error
        if not isinstance(found, dict):
            raise ProtocolError(self._name, f"{request.url}: answered {answer[:80]!r}")
        return found


def _place(keys: Sequence[RowKey], coming: Sequence[RowKey]) -> int | None:
    """Return where these keys stand in their pass, None if that is not known."""
    if not keys or not coming:
        return None
    first = keys[0].index - coming[0].index  # rows of a pass are numbered one after the other
    inside = 0 <= first <= len(coming) - len(keys)
    return first if inside and _same(coming, first, keys) else None


def _same(coming: Sequence[RowKey], first: int, keys: Sequence[RowKey]) -> bool:
    return all(coming[first + i] == key for i, key in enumerate(keys))

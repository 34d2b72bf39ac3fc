"""What a simulated bench answers beside its wires: HTTP and JSON, for tests and for `RemoteRig`.

    GET    /healthz              is it there
    GET    /rigs/RIG             each instrument's counters, and whether it is in its safe state
    POST   /rigs/RIG/keys        {"keys": [[stream, index, time_s], ...]}: the coming rows' keys
    POST   /rigs/RIG/faults      arm a fault, see `drivers.mock.faults.FaultOrder`
    DELETE /rigs/RIG/faults      disarm all
    PUT    /rigs/RIG/interlock   {"closed": true or false}: close or open the interlock's contact

No instrument has any of this: it stands for the hands of somebody in the laboratory.
"""

import json
from collections.abc import Mapping
from typing import Any

from drivers.mock.faults import FaultOrder
from drivers.mock.firmware.interlock import InterlockFirmware
from drivers.mock.rig import Rig
from drivers.row_key import RowKey

_JSON = "application/json"
Answer = tuple[int, str, bytes]


class Admin:
    """The rigs of one process; an `HttpFirmware` like any other."""

    def __init__(self, rigs: Mapping[str, Rig]) -> None:
        self._rigs = rigs

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request; 400 says what is wrong with it, 404 that there is no such thing."""
        match method, path.strip("/").split("/"):
            case "GET", ["healthz"]:
                return _answer({"status": "ok", "rigs": list(self._rigs)})
            case _, ["rigs", name, *rest] if name in self._rigs:
                return self._of_rig(self._rigs[name], method, rest, body)
        return _problem(404, f"no {method} {path} (rigs: {', '.join(self._rigs)})")

    def _of_rig(self, rig: Rig, method: str, rest: list[str], body: bytes) -> Answer:
        try:
            match method, rest:
                case "GET", []:
                    return _answer({name: state_of(i) for name, i in rig.instruments.items()})
                case "POST", ["keys"]:
                    rig.announce_rows(_keys(_object(body)))
                    return _answer({"ahead": rig.hears_ahead})
                case "POST", ["faults"]:
                    rig.arm(FaultOrder.read(_object(body)))
                    return _answer({})
                case "DELETE", ["faults"]:
                    rig.clear_faults()
                    return _answer({})
                case "PUT", ["interlock"]:
                    _interlock(rig).closed = _truth(_object(body), "closed")
                    return _answer({})
        except ValueError as error:
            return _problem(400, str(error))
        return _problem(404, f"no {method} of {'/'.join(rest) or 'a rig'}")


def state_of(instrument: object) -> dict[str, Any]:
    """Return the public numbers of a simulated instrument, whether it is `safe` among them."""
    names = [name for name in getattr(instrument, "__dict__", {}) if not name.startswith("_")]
    values = {name: getattr(instrument, name, None) for name in (*names, "out_of_limits", "safe")}
    return {name: value for name, value in values.items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


def _interlock(rig: Rig) -> InterlockFirmware:
    firmware = rig.instruments.get("interlock")
    if not isinstance(firmware, InterlockFirmware):
        raise ValueError("the rig's interlock is none that could be opened or closed here")
    return firmware


def _truth(data: Mapping[str, Any], key: str) -> bool:
    if not isinstance(data.get(key), bool):
        raise ValueError(f"{key}: true or false is needed")
    return bool(data[key])


def _keys(data: Mapping[str, Any]) -> list[RowKey]:
    try:
        return [RowKey(int(s), int(i), float(t)) for s, i, t in data["keys"]]
    except (KeyError, TypeError) as error:
        raise ValueError("keys: a list of [stream, index, time_s] is needed") from error


def _object(body: bytes) -> dict[str, Any]:
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("an object is needed")
    return data


def _answer(data: object) -> Answer:
    return 200, _JSON, json.dumps(data).encode()


def _problem(status: int, detail: str) -> Answer:
    return status, _JSON, json.dumps({"detail": detail}).encode()

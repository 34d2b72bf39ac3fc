"""The far end of a WaveShaper A: its HTTP interface and what its filter does to the light.

Semantics after the vendor's text and public clients: attenuation below 0 dB counts as 0, above
40 dB the line is blocked, phase is taken modulo 2 pi, port 0 blocks, a profile may cover a part of
the band (the rest is blocked) on a contiguous 1 GHz grid, a port's band is at least 10 GHz wide.
"""

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drivers.mock.faults import GARBAGE, AnswerLate, ConnectionDropped, Fault, FaultQueue
from drivers.mock.firmware.bounds import Bounds
from drivers.shapers.wsp import Profile, ProfileReader, parse_profile
from drivers.spec import Array

START_THZ, STOP_THZ, STEP_THZ = 191.250, 196.275, 0.001
BLOCK_ABOVE_DB = 40.0
NARROWEST_BAND_LINES = 10
ATTENUATION_DB = Bounds(0.0, 60.0)
PHASE_RAD = Bounds(-6.2832, 6.2832)  # 2 pi as it is written

Reply = tuple[int, str, bytes]
_WSP_HEAD, _WSP_TAIL = b'{"type":"wsp","wsp":"', b'"}'


class ProfileRefused(Exception):
    """A request that the instrument understands and does not carry out; its rctext."""


class WaveShaperFirmware:
    """One simulated WaveShaper 1000A; its only output port lights the plant.

    For tests: `profiles_loaded`, `blocked` (nothing leaves the instrument), `out_of_limits` (values
    received outside `attenuation_db`, `phase_rad`, the hardware's unless a test narrows them, or
    the band; and profiles that let more than `transmission` of the power through, as a mean).
    """

    def __init__(
        self,
        set_transmission: Callable[[Array, NDArray[np.complex128]], None],
        *,
        model: str = "WaveShaper 1000A",
        serial: str = "SN201204",
        version: str = "2.7.4",
    ) -> None:
        """Power up, blocked; `set_transmission(frequencies_thz, t)` is the light's side."""
        self._set_transmission = set_transmission
        self._model, self._serial, self._version = model, serial, version
        self._port_count = 1
        self._faults = FaultQueue()
        self.profiles_loaded = 0
        self.out_of_limits = 0
        self.attenuation_db, self.phase_rad, self.transmission = ATTENUATION_DB, PHASE_RAD, 1.0
        self._band = np.round(np.arange(START_THZ, STOP_THZ + STEP_THZ / 2, STEP_THZ), 3)
        self._grid = self._band
        self._reader = ProfileReader((rb"\t", rb"\n"))
        self._fill(60.0, port=0)

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next request whose `METHOD path body` contains `on`."""
        self._faults.arm(fault, on or ("devinfo" if fault is Fault.IDENTITY else ""))

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self._faults.clear()

    @property
    def safe(self) -> bool:
        """Whether no light leaves it."""
        return self.blocked

    def handle(self, method: str, path: str, body: bytes) -> Reply:
        """Answer one HTTP request with status, content type and body."""
        fault = self._faults.take(b"%s %s %s" % (method.encode(), path.encode(), body))
        if fault is Fault.DROP:
            raise ConnectionDropped
        status, kind, payload = self._answer(method, path, body, fault)
        if fault is Fault.TIMEOUT:
            raise AnswerLate
        if fault is Fault.GARBAGE:
            payload = GARBAGE
        if fault is Fault.TRUNCATE:
            payload = payload[: len(payload) // 2]
        return status, kind, payload

    def _answer(self, method: str, path: str, body: bytes, fault: Fault | None) -> Reply:
        if fault is Fault.REFUSE:
            return self._json(-1, "internal error")
        match method, path:
            case "GET", "/waveshaper/devinfo":
                return self._devinfo(impostor=fault is Fault.IDENTITY)
            case "GET", "/waveshaper/getprofile":
                return 200, "text/plain", self._text().encode()
            case "POST", "/waveshaper/loadprofile":
                return self._load(body)
            case _:
                return 404, "text/plain", b"not found"

    def _devinfo(self, *, impostor: bool) -> Reply:
        information = {
            "model": "OtherShaper 9" if impostor else self._model,
            "ver": self._version,
            "startfreq": START_THZ,
            "stopfreq": STOP_THZ,
            "ip": "127.0.0.1",
            "portcount": self._port_count,
        }
        return self._json(0, "", information)

    def _json(self, rc: int, text: str, more: dict[str, object] | None = None) -> Reply:
        answer = {"rc": rc, "rctext": text, "sno": self._serial, **(more or {})}
        return 200, "application/json", json.dumps(answer).encode()

    def _text(self) -> str:
        p = self._profile
        lines = zip(p.frequencies_thz, p.attenuation_db, p.phase_rad, p.port, strict=True)
        return "".join(f"{f:.4f}\t{a:.4f}\t{phase:.4f}\t{port}\n" for f, a, phase, port in lines)

    def _load(self, body: bytes) -> Reply:
        try:
            profile = self._compact_profile(body)
            if profile is not None:
                self._load_profile(profile)
            else:
                request = json.loads(body)
                self._carry_out(request["type"], request)
        except (ValueError, KeyError, TypeError) as error:
            return self._json(-2, f"malformed request: {error}")
        except ProfileRefused as refusal:
            return self._json(-3, str(refusal))
        return self._json(0, "")

    def _compact_profile(self, body: bytes) -> Profile | None:
        """Read the profile of a request in JSON's shortest spelling, None for all other requests.

        Four thousand escapes make `json.loads` slow. The reader takes them as separators and knows
        every other byte of the text for a part of a number, so JSON would read the same.
        """
        if not (body.startswith(_WSP_HEAD) and body.endswith(_WSP_TAIL)):
            return None
        return self._reader.read(body[len(_WSP_HEAD) : -len(_WSP_TAIL)])

    def _carry_out(self, kind: str, request: dict[str, object]) -> None:
        match kind:
            case "wsp":
                self._load_profile(parse_profile(str(request["wsp"])))
            case "blockall":
                self._fill(60.0, port=0)
            case "transmit":
                self._fill(0.0, port=1)
            case _:
                raise ProfileRefused(f"profile type {kind!r} is not supported")

    def _fill(self, attenuation_db: float, port: int) -> None:
        zero = np.zeros(len(self._band))
        ports = np.full(len(zero), port, dtype=np.int64)
        self._apply(Profile(self._band, zero + attenuation_db, zero, ports))

    def _load_profile(self, profile: Profile) -> None:
        self._check(profile)
        self.profiles_loaded += 1
        self._apply(profile)

    def _check(self, profile: Profile) -> None:
        f, attenuation, phase = profile.frequencies_thz, profile.attenuation_db, profile.phase_rad
        inside = (attenuation >= self.attenuation_db.low) & (
            attenuation <= self.attenuation_db.high
        )
        inside &= (phase >= self.phase_rad.low) & (phase <= self.phase_rad.high)
        same_grid = f is self._grid  # checked when it came
        if not same_grid:
            inside &= (f >= START_THZ - 1e-6) & (f <= STOP_THZ + 1e-6)
        outside = len(f) - int(np.count_nonzero(inside))
        self.out_of_limits += outside
        if self.transmission < 1:
            light = np.abs(transmission(attenuation, phase, profile.port != 0)) ** 2
            self.out_of_limits += not light.mean() <= self.transmission
        if not same_grid:
            _check_grid(f)
        # what is not finite is outside too
        if outside and not (np.isfinite(attenuation).all() and np.isfinite(phase).all()):
            raise ProfileRefused("attenuation and phase must be finite")
        self._check_ports(profile.port)

    def _check_ports(self, port: NDArray[np.int64]) -> None:
        if port.min() < 0 or port.max() > self._port_count:
            raise ProfileRefused(f"port outside 0-{self._port_count}")
        changes = np.flatnonzero(port[1:] != port[:-1]) + 1
        edges = [0, *changes.tolist(), len(port)]
        if any(end - begin < NARROWEST_BAND_LINES for begin, end in pairwise(edges)):
            raise ProfileRefused("a port's band is narrower than 10 GHz")

    def _apply(self, profile: Profile) -> None:
        f = profile.frequencies_thz
        if f is not self._grid and not np.array_equal(f, self._grid):
            self._grid = f  # else the same object: the plant may cache
        self._profile = profile
        light = transmission(profile.attenuation_db, profile.phase_rad, profile.port == 1)
        self.blocked = not light.any()
        self._set_transmission(self._grid, light)


def transmission(
    attenuation_db: Array, phase_rad: Array, lit: NDArray[np.bool_] | bool = True
) -> NDArray[np.complex128]:
    """Return what the filter does to the light's field, of any shape; lit: on the output port."""
    passes = lit & (attenuation_db <= BLOCK_ABOVE_DB)
    amplitude = 10.0 ** (np.maximum(attenuation_db, 0.0) / -20.0) * passes
    return np.asarray(amplitude * np.exp(1j * phase_rad))


def _check_grid(frequencies_thz: Array) -> None:
    f = frequencies_thz
    if len(f) == 0 or f[0] < START_THZ - 1e-6 or f[-1] > STOP_THZ + 1e-6:
        raise ProfileRefused(f"frequencies outside {START_THZ:.3f}-{STOP_THZ:.3f} THz")
    if (np.abs(f[1:] - f[:-1] - STEP_THZ) > 1e-6).any():
        raise ProfileRefused("frequencies are not a contiguous 0.001 THz grid")

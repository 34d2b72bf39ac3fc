"""WaveShaper A series (1000A, 4000A; Finisar/II-VI/Coherent): programmable filter over HTTP.

    GET  /waveshaper/devinfo      JSON: model, sno, ver, startfreq, stopfreq, portcount, rc, rctext
    GET  /waveshaper/getprofile   the profile in use, as text (`drivers.shapers.wsp`)
    POST /waveshaper/loadprofile  {"type":"wsp","wsp":<text>} or {"type":"blockall","port":<n>}

Attenuation 0 to 60 dB: guaranteed up to 30 dB, best effort up to 40 dB, above that the instrument
blocks the line. Phase -2 pi to 2 pi rad: the instrument takes it modulo 2 pi. While a profile is
loaded the light passes through uncontrolled states for some ten milliseconds.
"""

import json
import threading
from typing import Any

import httpx
import numpy as np

from drivers.abort import Abort
from drivers.errors import InstrumentRefused, ProtocolError, refuse
from drivers.instrument import Closing, check_identity
from drivers.limits import Narrowing, transmission
from drivers.shapers.wsp import Profile, ProfileFormat, parse_profile
from drivers.spec import Array, ArraySpec
from drivers.wires.http import exchange

BAND_THZ = (191.250, 196.275)
STEP_THZ = 0.001
FEWEST_LINES = 10  # a port's band is at least 10 GHz wide
PORTS = (1, 4)
_HALF_STEP_THZ = STEP_THZ / 2
_PATH = "/waveshaper/"


class WaveShaperA(Closing):
    """A pulse shaper with `lines` lines of 1 GHz, all sent to one port.

    The hardware's limits; the bench file may set narrower ones: `low` (the least attenuation that
    every line keeps) and `high` of `attenuation`, dB; `low` and `high` of `phase`, rad; and with
    `attenuation` also `transmission`, the mean share of power that the lines may let through.
    """

    ATTENUATION_DB = (0.0, 60.0)
    PHASE_RAD = (-6.2832, 6.2832)  # 2 pi as it is written
    DECIMALS = 4  # of both, as they are written

    def __init__(
        self,
        client: httpx.Client,
        *,
        name: str = "shaper",
        first_line_thz: float = 192.915,
        lines: int = 1000,
        port: int = 1,
        settling_time_s: float = 0.5,
        expect_idn: str | None = None,
        attenuation: Narrowing | None = None,
        phase: Narrowing | None = None,
    ) -> None:
        """Take the connection (closed by `close`) and the fixed part of every profile; no I/O.

        Line i lies at first_line_thz + 0.001 i THz, all within 191.250-196.275 THz; port 1 to 4;
        settling_time_s is waited after each profile; expect_idn is a regular expression that the
        identity must contain; attenuation (dB) and phase (rad) narrow the limits. Raises
        LimitError, or ValueError for limits that are wider than the instrument's.
        """
        self.name = name
        self.settling_time_s = settling_time_s
        self._client = client
        self._expect_idn = expect_idn
        self._port = port
        self._frequencies = _check_grid(name, first_line_thz, lines, port)
        self._format = ProfileFormat(self._frequencies, port, (rb"\t", rb"\n"))
        shape = (lines,)
        light = (transmission(0.5 * 10.0**-self.DECIMALS),)
        low, high = self.ATTENUATION_DB
        declared = ArraySpec(
            "attenuation", "dB", shape, low, high, decimals=self.DECIMALS, row_limits=light
        )
        self._attenuation = declared.limited(attenuation)
        low, high = self.PHASE_RAD
        declared = ArraySpec("phase", "rad", shape, low, high, decimals=self.DECIMALS)
        self._phase = declared.limited(phase)
        self._load_request = _load_request(client)
        self._abort = Abort(name)
        self._sending = threading.RLock()  # no profile behind another thread's `shutdown`
        self._closed = False

    @property
    def attenuation(self) -> ArraySpec:
        """Get what `load` accepts, (lines,) dB."""
        return self._attenuation

    @property
    def phase(self) -> ArraySpec:
        """Get what `load` accepts, (lines,) rad."""
        return self._phase

    @property
    def frequencies_thz(self) -> Array:
        """Return the frequency of each line, (lines,), THz."""
        return self._frequencies.copy()

    # --- Instrument -------------------------------------------------------------------------

    def identify(self) -> str:
        """Return model, serial number and firmware version."""
        return self._identity(self._device_information())

    def start(self) -> None:
        """Check who answers and that it covers the lines and the port; then block all light.

        Raises IdentityError, LimitError, or what the wire does.
        """
        self._abort.clear()
        information = self._device_information()
        identity = self._identity(information)
        check_identity(self.name, identity, self._expect_idn)
        self._check_device(information)
        self.shutdown()

    def shutdown(self) -> None:
        """Block all light, behind a profile that is being sent; idempotent."""
        body = json.dumps({"type": "blockall", "port": self._port}, separators=(",", ":"))
        with self._sending:
            if not self._closed:
                self._post("blockall", body.encode())

    def abort(self) -> None:
        """End a wait for settling, and refuse profiles until the next `start`; any thread."""
        self._abort.request()

    def close(self) -> None:
        """Block all light and release the connection; idempotent."""
        with self._sending:
            try:
                self.shutdown()
            finally:
                self._closed = True
                self._client.close()

    # --- PulseShaper ------------------------------------------------------------------------

    def load(self, attenuation_db: Array, phase_rad: Array) -> None:
        """Program every line, each (lines,), dB and rad; return when the filter has settled.

        Raises LimitError before anything is sent, InstrumentRefused, InstrumentTimeout,
        ConnectionLost or ProtocolError; after these the filter's state is unknown. Raises Aborted
        after `abort`, before the profile is sent or while the filter settles.
        """
        attenuation_db = self._check(self._attenuation, attenuation_db)
        phase_rad = self._check(self._phase, phase_rad)
        lines = self._format.format(attenuation_db, phase_rad)
        with self._sending:
            self._abort.check("load")
            self._post("loadprofile", b'{"type":"wsp","wsp":"%s"}' % lines)
        self._abort.wait("settling", self.settling_time_s)

    def profile(self) -> Profile:
        """Return the profile that the instrument says it uses."""
        answer = self._get("getprofile")
        try:
            return parse_profile(answer)
        except ValueError as error:
            raise ProtocolError(self.name, f"getprofile: {error}") from error

    def _check(self, spec: ArraySpec, values: Array) -> Array:
        checked = spec.check(values, instrument=self.name)
        if checked.ndim != 1:
            message = f"shape {checked.shape} is not one profile, {spec.shape}"
            refuse(self.name, spec.name, message)
        return checked

    # --- the wire ---------------------------------------------------------------------------

    def _device_information(self) -> dict[str, Any]:
        return self._accepted("devinfo", self._get("devinfo"))

    def _identity(self, information: dict[str, Any]) -> str:
        try:
            return "{model} {sno} ver {ver}".format_map(information)
        except KeyError as missing:
            raise ProtocolError(self.name, f"devinfo: the answer lacks {missing}") from missing

    def _check_device(self, information: dict[str, Any]) -> None:
        try:
            low, high = float(information["startfreq"]), float(information["stopfreq"])
            ports = int(information["portcount"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(self.name, f"devinfo: unusable answer ({error!r})") from error
        first, last = self._frequencies[[0, -1]]
        if first < low - _HALF_STEP_THZ or last > high + _HALF_STEP_THZ:
            message = f"{first:.3f} to {last:.3f} THz is outside this device's "
            refuse(self.name, "lines", message + f"[{low:.3f}, {high:.3f}] THz")
        if self._port > ports:
            message = f"{self._port} is outside this device's [1, {ports}]"
            refuse(self.name, "port", message)

    def _post(self, asked: str, body: bytes) -> None:
        self._accepted(asked, self._answer(asked, self._new_load_request(body)))

    def _get(self, asked: str) -> bytes:
        return self._answer(asked, self._client.build_request("GET", _PATH + asked))

    def _new_load_request(self, body: bytes) -> httpx.Request:
        """Return a POST of `body`; merging URL and headers anew would take a third of its time."""
        kept = self._load_request
        length = (b"Content-Length", b"%d" % len(body))
        return httpx.Request(
            "POST",
            kept.url,
            headers=[*kept.headers.raw, length],
            stream=httpx.ByteStream(body),
            extensions=kept.extensions,
        )

    def _answer(self, asked: str, request: httpx.Request) -> bytes:
        """Exchange one request; raises what the wire does."""
        return exchange(self._client, request, name=self.name, asked=asked)

    def _accepted(self, asked: str, answer: bytes) -> dict[str, Any]:
        """Return the JSON object answered; raise InstrumentRefused unless its rc is 0."""
        try:
            content = json.loads(answer)
        except ValueError as error:
            raise ProtocolError(self.name, f"{asked}: not JSON: {answer[:80]!r}") from error
        if not isinstance(content, dict) or "rc" not in content:
            raise ProtocolError(self.name, f"{asked}: no rc in {answer[:80]!r}")
        if content["rc"] != 0:
            message = f"{asked}: rc {content['rc']}: {content.get('rctext', '')}"
            raise InstrumentRefused(self.name, message)
        return content


def _load_request(client: httpx.Client) -> httpx.Request:
    """Return the part of a `loadprofile` request that stays the same."""
    headers = {"content-type": "application/json"}
    request = client.build_request("POST", _PATH + "loadprofile", headers=headers)
    del request.headers["content-length"]  # each body brings its own
    return request


def _check_grid(name: str, first_line_thz: float, lines: int, port: int) -> Array:
    """Return the frequencies (lines,), THz, or raise LimitError."""
    if lines < FEWEST_LINES:
        refuse(name, "lines", f"{lines} is fewer than {FEWEST_LINES}")
    if not PORTS[0] <= port <= PORTS[1]:
        refuse(name, "port", f"{port} is outside [{PORTS[0]}, {PORTS[1]}]")
    if abs(first_line_thz / STEP_THZ - round(first_line_thz / STEP_THZ)) > 1e-6:
        refuse(name, "first_line_thz", f"{first_line_thz!r} is not on the 0.001 THz grid")
    first = round(first_line_thz / STEP_THZ)
    frequencies: Array = np.arange(first, first + lines, dtype=np.float64) / 1000
    low, high = BAND_THZ
    if frequencies[0] < low - _HALF_STEP_THZ or frequencies[-1] > high + _HALF_STEP_THZ:
        message = f"{frequencies[0]:.3f} to {frequencies[-1]:.3f} THz is outside "
        refuse(name, "lines", message + f"[{low:.3f}, {high:.3f}] THz")
    return frequencies

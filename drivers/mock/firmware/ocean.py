"""The far end of an Ocean HDX: its binary protocol, and what its detector makes of the light.

Messages as seabreeze 2.11.0 asks them; frames after `ocean_frames`. The grating is a
special one that no catalogue has: 2068 pixels from 773 to 777 nm, 1.9 pm each, where a standard HDX
has some tenths of a nanometre a pixel, with which nothing on the optical bench could be told apart.
Counts are a dark offset plus what the light gives in the integration time, rounded, at most 65535.
The first spectrum after a change of the integration time is still of the old one.
"""

import struct
from collections.abc import Callable

import numpy as np

from drivers.mock.faults import (
    GARBAGE,
    ConnectionDropped,
    Fault,
    FaultQueue,
)
from drivers.spec import Array
from drivers.spectrometers.ocean_frames import (
    HEADER_BYTES,
    NO_FLAG,
    BadFrame,
    Error,
    Flag,
    Frame,
    Message,
    body_bytes,
    unpack,
)

SERIAL = "HDX00714"
PRODUCT_ID = 0x2003
PIXELS = 2068
WAVELENGTHS_NM = (773.0, 1.94e-3, -2e-9)  # times 1, pixel, pixel^2; single precision on the wire
NONLINEARITY = (1.0,)
INTEGRATION_US = (6_000, 9_999_999)
TRIGGER_MODES = (0, 1, 3, 255)
FULL_SCALE = 65_535
DARK_COUNTS = 1_500
WATTS_PER_COUNT = 2.4e-11  # at 10 ms: the detector is full just before the optics' own scale
_COUNTS_PER_W_US = 1 / (WATTS_PER_COUNT * 10_000)
_COMMAND_FAULTS = frozenset({Fault.DROP, Fault.REFUSE, Fault.IDENTITY})
_REPLY_FAULTS = frozenset({Fault.TIMEOUT, Fault.GARBAGE, Fault.TRUNCATE})


class OceanFirmware:
    """One simulated HDX in front of the plant; counts its spectra in `spectra`.

    `out_of_limits`: values received outside the integration times and trigger modes it has.
    """

    network_address = "ocean://{host}:{port}"  # what a bench file writes

    def __init__(
        self,
        spectrum: Callable[[Array], Array],
        *,
        serial: str = SERIAL,
        honour_times: bool = False,
    ) -> None:
        """Power up; `spectrum(wavelengths_m)` is the light's side, W.

        honour_times: an integration takes its time.
        """
        self._spectrum = spectrum
        self._serial = serial.encode("ascii")
        self._honour_times = honour_times
        self._took_s = 0.0
        coefficients = np.array(WAVELENGTHS_NM, dtype=np.float32).astype(np.float64)
        self._axis_m = np.polynomial.Polynomial(coefficients)(np.arange(PIXELS)) * 1e-9
        self._time_us = self._spectrum_us = 100_000
        self.faults = FaultQueue()
        self.spectra = 0
        self.out_of_limits = 0

    def connect(self) -> "OceanSession":
        """Open one more connection."""
        return OceanSession(self)

    def inject(self, fault: Fault, on: str = "") -> None:
        """Arm `fault` for the next request whose name and number contain `on`.

        Such as "GET_SERIAL 0x100", after `drivers.spectrometers.ocean_frames.Message`.
        """
        self.faults.arm(fault, on or ("GET_SERIAL 0x100" if fault is Fault.IDENTITY else ""))

    def clear_faults(self) -> None:
        """Disarm every fault."""
        self.faults.clear()

    @property
    def safe(self) -> bool:
        """Whether it is in its safe state: always, it emits nothing."""
        return True

    def answer(self, request: Frame) -> Frame | None:
        """Carry out one request; None where the host asks for no acknowledgement.

        Raises ConnectionDropped where an armed fault says so.
        """
        fault = self.faults.take(name_of(request.message).encode(), _COMMAND_FAULTS)
        if fault is Fault.DROP:
            raise ConnectionDropped
        if fault is Fault.REFUSE:
            return refusal(request, Error.NOT_READY)
        try:
            payload = self._carry_out(request.message, request.payload)
        except _Refused as refused:
            return refusal(request, refused.error)
        if fault is Fault.IDENTITY:
            payload = b"OTHER001"
        acknowledge = bool(request.flags & Flag.REQUEST_ACK)
        if payload is None and not acknowledge:
            return None
        flags = Flag.RESPONSE | (Flag.ACK if acknowledge else NO_FLAG)
        return reply(request, payload or b"", flags)

    def took_s(self) -> float:
        """Return how long the requests took that came since it was asked last, s."""
        took_s, self._took_s = self._took_s, 0.0
        return took_s

    def _carry_out(self, message: int, payload: bytes) -> bytes | None:
        """Return the payload of the answer, None for a command; raise _Refused."""
        match message:
            case Message.GET_SERIAL:
                return self._serial
            case Message.GET_SERIAL_LENGTH:
                return bytes([len(self._serial)])
            case Message.GET_PRODUCT_ID:
                return struct.pack("<H", PRODUCT_ID)
            case Message.GET_WAVELENGTH_COEFFICIENT_COUNT:
                return bytes([len(WAVELENGTHS_NM)])
            case Message.GET_WAVELENGTH_COEFFICIENT:
                return _coefficient(WAVELENGTHS_NM, payload)
            case Message.GET_NONLINEARITY_COEFFICIENT_COUNT:
                return bytes([len(NONLINEARITY)])
            case Message.GET_NONLINEARITY_COEFFICIENT:
                return _coefficient(NONLINEARITY, payload)
            case Message.GET_RAW_SPECTRUM_NOW:
                return self._integrate().tobytes()
            case Message.SET_INTEGRATION_TIME_US:
                self._set_integration_time(_number("<L", payload))
            case Message.SET_TRIGGER_MODE:
                self._set_trigger_mode(_number("<B", payload))
            case _:
                raise _Refused(Error.MESSAGE_TYPE)
        return None

    def _set_integration_time(self, time_us: int) -> None:
        low, high = INTEGRATION_US
        if not low <= time_us <= high:
            self.out_of_limits += 1
            raise _Refused(Error.PAYLOAD)
        self._time_us = time_us

    def _set_trigger_mode(self, mode: int) -> None:
        if mode not in TRIGGER_MODES:
            self.out_of_limits += 1
            raise _Refused(Error.PAYLOAD)

    def _integrate(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
        if self._honour_times:
            self._took_s += self._spectrum_us * 1e-6
        power_w = self._spectrum(self._axis_m)
        counts = DARK_COUNTS + power_w * (_COUNTS_PER_W_US * self._spectrum_us)
        self._spectrum_us = self._time_us
        self.spectra += 1
        return np.clip(np.rint(counts), 0, FULL_SCALE).astype("<u2")


class OceanSession:
    """One connection: bytes in, bytes out.

    held_back_s: for so long what `receive` returned last is held back.
    """

    def __init__(self, firmware: OceanFirmware) -> None:
        """Connect to `firmware`."""
        self.held_back_s = 0.0
        self._firmware = firmware
        self._input = b""
        self._late = b""
        self._dropped = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host and return the bytes sent back; may raise ConnectionDropped.

        What is no frame is refused, and forgotten with all that came with it.
        """
        if self._dropped:
            raise ConnectionDropped
        self.held_back_s = 0.0
        self._input += data
        sent = b""
        while len(self._input) >= HEADER_BYTES:
            try:
                end = HEADER_BYTES + body_bytes(self._input[:HEADER_BYTES])
                if len(self._input) < end:
                    break
                request = unpack(self._input[:end])
            except BadFrame as error:
                self._input = b""
                return sent + refusal(Frame(0), error.error).pack()
            self._input = self._input[end:]
            sent += self._exchange(request)
        return sent

    def close(self) -> None:
        """End the connection; idempotent."""
        self._dropped = True

    def _exchange(self, request: Frame) -> bytes:
        try:
            answer = self._firmware.answer(request)
        except ConnectionDropped:
            self._dropped = True
            raise
        self.held_back_s += self._firmware.took_s()
        if answer is None:
            return b""
        data = answer.pack()
        fault = self._firmware.faults.take(name_of(request.message).encode(), _REPLY_FAULTS)
        if fault is Fault.TIMEOUT:
            self._late += data
            return b""
        if fault is Fault.GARBAGE:
            data = GARBAGE * 20  # as long as a header, so that the host need not wait for more
        if fault is Fault.TRUNCATE:
            data = data[: len(data) // 2]
        late, self._late = self._late, b""
        return late + data


class _Refused(Exception):
    def __init__(self, error: Error) -> None:
        super().__init__(error)
        self.error = error


def name_of(message: int) -> str:
    """Return a message's name and number, such as `GET_SERIAL 0x100`."""
    known = {m.value: m.name for m in Message}
    return f"{known.get(message, 'UNKNOWN')} {message:#x}"


def reply(request: Frame, payload: bytes, flags: Flag) -> Frame:
    """Return the answer to a request, with a checksum if it had one."""
    return Frame(request.message, payload, flags, 0, request.regarding, request.checksum)


def refusal(request: Frame, error: Error) -> Frame:
    """Return the answer of an instrument that says no."""
    flags = Flag.RESPONSE | Flag.NACK
    return Frame(request.message, b"", flags, error, request.regarding, request.checksum)


def _number(form: str, payload: bytes) -> int:
    if len(payload) != struct.calcsize(form):
        raise _Refused(Error.PAYLOAD_LENGTH)
    (value,) = struct.unpack(form, payload)
    return int(value)


def _coefficient(values: tuple[float, ...], payload: bytes) -> bytes:
    number = _number("<B", payload)
    if number >= len(values):
        raise _Refused(Error.PAYLOAD)
    return struct.pack("<f", values[number])

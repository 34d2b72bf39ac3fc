"""Ocean spectrometers through seabreeze; import this only when one is opened (extra `ocean`).

seabreeze's messages, pixel tables and features are used as they are. Its own TCP transport is not:
it spins forever when the instrument closes the connection, takes what comes late for the next
answer, overlooks a refused setting, and finds instruments by a multicast that takes a second.
"""

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libusb_package
import usb.backend.libusb1
import usb.core
from seabreeze.pyseabreeze.devices import FX, HDX, SeaBreezeDevice
from seabreeze.pyseabreeze.exceptions import SeaBreezeError
from seabreeze.pyseabreeze.protocol import OBPProtocol
from seabreeze.pyseabreeze.transport import (
    IPv4Transport,
    USBTransport,
    USBTransportDeviceInUse,
    USBTransportError,
)

from drivers.spec import Array
from drivers.spectrometers.ocean_frames import (
    HEADER_BYTES,
    BadFrame,
    Flag,
    Message,
    body_bytes,
    unpack,
)
from drivers.spectrometers.ocean_link import BadAnswer, ByteWire, Check, Refusal

MODELS = {"HDX": HDX, "FX": FX}
_USB_LONGEST_US = 1_000_000  # its library call cannot be cut short, and waits 1 s more
_UNREADABLE = (SeaBreezeError, struct.error, ValueError, AssertionError)


class CheckedTransport(IPv4Transport):
    """Carry seabreeze's messages over a wire, each answer checked whole before it is passed on.

    `integration_s` is waited for a spectrum beyond the patience with every answer.
    """

    def __init__(self, wire: ByteWire, timeout_s: float, check: Check) -> None:
        """Take a connected wire; `timeout_s` is the patience with every answer."""
        super().__init__(OBPProtocol)
        self.integration_s = 0.0
        self._wire = wire
        self._timeout_s = timeout_s
        self._check = check
        self._asked = 0
        self._answer = b""

    def write(self, data: bytes, timeout_ms: int | None = None, **kwargs: Any) -> int:
        """Send one message; raises OSError."""
        self._asked = unpack(data).message
        self._answer = b""
        self._wire.send(data)
        return len(data)

    def read(
        self,
        size: int | None = None,
        timeout_ms: int | None = None,
        mode: str | None = None,
        **kwargs: Any,
    ) -> bytes:
        """Return the next bytes of the answer; raises OSError, BadAnswer or Refusal."""
        if not self._answer:
            self._answer = self._whole_answer()
        size = 64 if size is None else size
        part, self._answer = self._answer[:size], self._answer[size:]
        return part

    @property
    def default_timeout_ms(self) -> int:
        """Get seabreeze's own patience, which is not used here."""
        return round(self._timeout_s * 1000)

    def _whole_answer(self) -> bytes:
        patience_s = self._timeout_s
        if self._asked == Message.GET_RAW_SPECTRUM_NOW:
            patience_s += self.integration_s
        deadline = time.monotonic() + patience_s
        try:
            header = self._wire.receive(HEADER_BYTES, deadline, self._check)
            data = header + self._wire.receive(body_bytes(header), deadline, self._check)
            frame = unpack(data)
        except BadFrame as error:
            raise BadAnswer(f"no OBP frame ({error})") from error
        if frame.error and frame.flags & (Flag.NACK | Flag.HARDWARE_EXCEPTION):
            text = OBPProtocol.OBP.ERROR_CODES.get(frame.error, "unknown error")
            raise Refusal(f"error {frame.error}, {text}")
        # an acknowledgement without content need not name what it acknowledges
        if frame.payload and frame.message != self._asked:
            raise BadAnswer(f"answers message {frame.message:#x}, not {self._asked:#x}")
        return data


class SeabreezeLink:
    """What both kinds of connection have: seabreeze's spectrometer feature (`_feature`)."""

    has_lamp = False
    _feature: Any = None

    def integration_limits_us(self) -> tuple[int, int]:
        """Return the shortest and the longest integration time, us."""
        low, beyond = self._feature.get_integration_time_micros_limits()
        return low, beyond - 1

    def full_scale_counts(self) -> float:
        """Return what a saturated pixel reads."""
        return float(self._feature.get_maximum_intensity())

    def wavelengths_nm(self) -> Array:
        """Ask for the wavelength of each pixel, (pixels,), nm."""
        with _readable():
            wavelengths_nm: Array = self._feature.get_wavelengths()
        return wavelengths_nm

    def free_run(self) -> None:
        """Let each request start its own integration, and switch a lamp off."""
        with _readable():
            self._feature.set_trigger_mode(0)
        self.lamp_off()

    def set_integration_time(self, time_us: int) -> None:
        """Set the integration time, us."""
        with _readable():
            self._feature.set_integration_time_micros(time_us)

    def intensities(self) -> Array:
        """Take one spectrum, (pixels,) counts."""
        with _readable():
            counts: Array = self._feature.get_intensities()
        return counts

    def lamp_off(self) -> None:
        """Do nothing: no lamp."""


class NetworkLink(SeabreezeLink):
    """An HDX or FX on a byte stream that speaks OBP."""

    def __init__(self, connect: Callable[[], ByteWire], timeout_s: float) -> None:
        """Take what opens the byte stream, and the patience with an answer."""
        self._connect = connect
        self._timeout_s = timeout_s
        self._wire: ByteWire | None = None
        self._model = ""
        # seabreeze keeps only weak references to these two
        self._transport: CheckedTransport
        self._protocol: OBPProtocol

    def open(self, model: str, check: Check) -> None:
        """Connect anew; raises OSError, or ValueError for a model without OBP over TCP."""
        if model not in MODELS:
            raise ValueError(f"model '{model}' is not one of {', '.join(MODELS)}")
        self.close()
        self._wire = self._connect()
        self._model = model
        self._transport = CheckedTransport(self._wire, self._timeout_s, check)
        self._protocol = OBPProtocol(self._transport)
        (feature,) = MODELS[model]._feature_classes["spectrometer"]
        self._feature = feature(self._protocol, 0)

    def close(self) -> None:
        """Release the connection; idempotent."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def identity(self) -> str:
        """Ask who answers: maker, model, serial number."""
        with _readable():
            (length,) = self._protocol.query(Message.GET_SERIAL_LENGTH)
            serial = self._protocol.query(Message.GET_SERIAL)[:length].decode("ascii")
            if not serial.isprintable() or not serial:
                raise ValueError(f"serial number {serial!r}")
        return f"Ocean {self._model} {serial}"

    def set_integration_time(self, time_us: int) -> None:
        """Set the integration time, us, and wait that much longer for a spectrum."""
        super().set_integration_time(time_us)
        self._transport.integration_s = time_us * 1e-6


class UsbLink(SeabreezeLink):
    """Any spectrometer that pyseabreeze knows, on USB; by serial number, or the only one."""

    has_lamp = True

    def __init__(self, serial: str = "") -> None:
        """Take the serial number; "": there is only one."""
        self._serial = serial
        self._device: Any = None

    def open(self, model: str, check: Check) -> None:
        """Connect anew; raises ConnectionError or BadAnswer. The instrument says its model."""
        self.close()
        with _usb_errors(), _readable():
            self._device = find_on_usb(self._serial)
        self._feature = self._device.f.spectrometer

    def close(self) -> None:
        """Release the connection; idempotent."""
        device, self._device = self._device, None
        if device is not None:
            device.close()

    def identity(self) -> str:
        """Ask who answers: maker, model, serial number."""
        with _usb_errors(), _readable():
            return f"Ocean {self._device.model} {self._device.get_serial_number()}"

    def integration_limits_us(self) -> tuple[int, int]:
        """Return the shortest and the longest integration time, us; 1 s at most."""
        low, high = super().integration_limits_us()
        return low, min(high, _USB_LONGEST_US)

    def wavelengths_nm(self) -> Array:
        """Ask for the wavelength of each pixel, (pixels,), nm."""
        with _usb_errors():
            return super().wavelengths_nm()

    def free_run(self) -> None:
        """Let each request start its own integration, and switch a lamp off."""
        with _usb_errors():
            super().free_run()

    def set_integration_time(self, time_us: int) -> None:
        """Set the integration time, us."""
        with _usb_errors():
            super().set_integration_time(time_us)

    def intensities(self) -> Array:
        """Take one spectrum, (pixels,) counts."""
        with _usb_errors():
            return super().intensities()

    def lamp_off(self) -> None:
        """Take the lamp enable line low where there is one; strobes obey it too."""
        with _usb_errors(), _readable():
            strobe = self._device.f.continuous_strobe
            if strobe is not None:
                strobe.set_enable(False)


def find_on_usb(serial: str) -> Any:
    """Return the opened seabreeze device with this serial number, or the only one.

    Raises ConnectionError where there is none or no telling which.
    """
    # pyusb keeps the library it has loaded, so that seabreeze finds it too
    usb.backend.libusb1.get_backend(find_library=libusb_package.find_library)
    handles = list(USBTransport.list_devices())
    if not serial and len(handles) != 1:
        raise ConnectionError(f"{len(handles)} spectrometers on USB, so name a serial number")
    seen = []
    for handle in handles:
        device = SeaBreezeDevice(handle)
        device.open()
        if serial in ("", device.serial_number):
            return device
        seen.append(device.serial_number)
        device.close()
    raise ConnectionError(f"no '{serial}' on USB (there are: {', '.join(seen) or 'none'})")


@contextmanager
def _readable() -> Iterator[None]:
    """Turn seabreeze's failures to read an answer into BadAnswer."""
    try:
        yield
    except _UNREADABLE as error:
        raise BadAnswer(f"unusable answer ({error})") from error


@contextmanager
def _usb_errors() -> Iterator[None]:
    """Turn the errors of USB into Python's own."""
    try:
        yield
    except usb.core.USBTimeoutError as error:
        raise TimeoutError(str(error)) from error
    except (
        usb.core.USBError,
        RuntimeError,  # no libusb, or a device that is not open
        USBTransportError,
        USBTransportDeviceInUse,
    ) as error:
        raise ConnectionError(str(error)) from error

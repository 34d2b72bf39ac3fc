"""Open wires that carry bytes: HTTP, VISA, Ocean's protocol."""

from collections.abc import Callable, Mapping

import httpx
from pymeasure.adapters import Adapter

from drivers.mock.byte_wire import SessionWire
from drivers.mock.firmware.ocean import OceanFirmware
from drivers.mock.http import FirmwareClient
from drivers.mock.replay import ReplayedStream
from drivers.mock.rig import HttpFirmware, Rig, StreamFirmware
from drivers.mock.visa import FirmwareAdapter
from drivers.spectrometers.ocean_link import ByteWire, OceanLink, TcpWire
from drivers.transport.addresses import IN_MEMORY, faults_on_wire, firmware_at, host_and_port
from drivers.wires.http_client import timely_client
from drivers.wires.tap import TappedAdapter, TappedClient, TappedWire, tap_of
from drivers.wires.visa_socket import SocketAdapter

_OCEAN = "ocean://"
_OCEAN_PORT = 57357
_OCEAN_USB = "ocean-usb://"


def open_http(address: str, rigs: Mapping[str, Rig], *, timeout_s: float) -> httpx.Client:
    """Open an HTTP instrument; raise ValueError for an address that names none.

    Proxies of the environment are not used: instruments stand in the lab's own network.
    """
    client, tap = _open_client(address, rigs, timeout_s), tap_of(rigs)
    return client if tap is None else TappedClient(client, tap)


def _open_client(address: str, rigs: Mapping[str, Rig], timeout_s: float) -> httpx.Client:
    if not address.startswith(IN_MEMORY):
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"{address}: not an http:// or mock:// address")
        return timely_client(address, timeout_s)
    firmware = firmware_at(address, rigs)
    if not isinstance(firmware, HttpFirmware):
        raise ValueError(f"{address}: this simulated instrument does not speak HTTP")
    return FirmwareClient(firmware, timeout_s=timeout_s, wire=faults_on_wire(address, rigs))


def open_visa(
    address: str, rigs: Mapping[str, Rig], *, timeout_s: float, terminator: str = "\r\n"
) -> Adapter:
    """Open a VISA instrument whose lines end in `terminator`.

    Raises ValueError for an address that names none, ConnectionLost if it cannot be reached.
    """
    adapter, tap = _open_adapter(address, rigs, timeout_s, terminator), tap_of(rigs)
    return adapter if tap is None else TappedAdapter(adapter, tap, terminator)


def _open_adapter(
    address: str, rigs: Mapping[str, Rig], timeout_s: float, terminator: str
) -> Adapter:
    if not address.startswith(IN_MEMORY):
        return SocketAdapter(address, timeout_s, terminator)
    firmware = firmware_at(address, rigs)
    if not isinstance(firmware, StreamFirmware):
        raise ValueError(f"{address}: this simulated instrument has no VISA interface")
    return FirmwareAdapter(
        firmware, terminator, timeout_s=timeout_s, wire=faults_on_wire(address, rigs)
    )


def open_ocean(address: str, rigs: Mapping[str, Rig], *, timeout_s: float) -> OceanLink:
    """Open an Ocean spectrometer: `ocean://host[:port]`, `ocean-usb://serial`, or a simulated one.

    Nothing is connected yet. Raises ValueError for an address that names none, or where seabreeze
    is not installed.
    """
    try:
        from drivers.spectrometers.ocean_seabreeze import NetworkLink, UsbLink
    except ImportError as error:
        raise ValueError(f"{address}: needs `pip install 'pnnlab[ocean]'` ({error})") from error
    tap = tap_of(rigs)
    if address.startswith(_OCEAN_USB):
        if tap is not None:
            raise ValueError(
                f"{address}: what goes over USB cannot be recorded, but over TCP it can"
            )
        return UsbLink(address.removeprefix(_OCEAN_USB))
    connect = _ocean_wire(address, rigs, timeout_s)
    return NetworkLink(connect if tap is None else lambda: TappedWire(connect, tap), timeout_s)


def _ocean_wire(address: str, rigs: Mapping[str, Rig], timeout_s: float) -> Callable[[], ByteWire]:
    """Return what connects; raises ValueError for an address that names none."""
    if address.startswith(_OCEAN):
        host, port = host_and_port(address, address.removeprefix(_OCEAN), _OCEAN_PORT)
        return lambda: TcpWire(host, port, timeout_s)
    if not address.startswith(IN_MEMORY):
        raise ValueError(f"{address}: not an ocean://, ocean-usb:// or mock:// address")
    firmware = firmware_at(address, rigs)
    if isinstance(firmware, ReplayedStream):
        return lambda: SessionWire(firmware.connect())
    if not isinstance(firmware, OceanFirmware):
        raise ValueError(f"{address}: this simulated instrument is no Ocean spectrometer")
    wire = faults_on_wire(address, rigs)
    return lambda: SessionWire(firmware.connect(), wire)

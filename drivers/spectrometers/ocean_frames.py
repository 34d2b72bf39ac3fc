"""Frames of the Ocean Binary Protocol (OBP), both ways: what the wire carries, free of any wire.

    44 bytes header, payload, 16 bytes checksum (MD5 of all before it, or zeros), 4 bytes footer

All numbers little-endian. The header: start bytes C1 C0, protocol version 0x1100, flags, error
number, message type, "regarding" (the host's number, echoed), 6 reserved, checksum type (0 none,
1 MD5), length of the immediate data, immediate data (16), bytes that follow the header. Up to 16
bytes of payload are immediate data; else they stand between header and checksum. Source: Ocean
Optics' STS data sheet ("OBP message header and footer") and seabreeze 2.11.0's `OBPProtocol`.
"""

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

HEADER_BYTES = 44
FOOTER_BYTES = 20  # checksum and footer
LONGEST_BODY = 1 << 20  # far above any spectrum: more is not a length
START = 0xC0C1
VERSION = 0x1100
FOOTER = 0xC2C3C4C5
_HEADER = struct.Struct("<HHHHLL6xBB16sL")
_FOOTER = struct.Struct("<16sL")
_IMMEDIATE = 16
_MD5 = 1


class Message(IntEnum):
    """Message types that spectrometers of the HDX and FX kind are asked."""

    GET_SERIAL = 0x100
    GET_SERIAL_LENGTH = 0x101
    GET_PRODUCT_ID = 0xE01
    GET_RAW_SPECTRUM_NOW = 0x101000
    SET_INTEGRATION_TIME_US = 0x110010
    SET_TRIGGER_MODE = 0x110110
    GET_WAVELENGTH_COEFFICIENT_COUNT = 0x180100
    GET_WAVELENGTH_COEFFICIENT = 0x180101
    GET_NONLINEARITY_COEFFICIENT_COUNT = 0x181100
    GET_NONLINEARITY_COEFFICIENT = 0x181101


class Flag(IntFlag):
    """The flags of a header."""

    RESPONSE = 0x01
    ACK = 0x02
    REQUEST_ACK = 0x04
    NACK = 0x08
    HARDWARE_EXCEPTION = 0x10
    DEPRECATED = 0x20


NO_FLAG = Flag(0)


class Error(IntEnum):
    """Error numbers of a refusal."""

    PROTOCOL = 1
    MESSAGE_TYPE = 2
    CHECKSUM = 3
    TOO_LARGE = 4
    PAYLOAD_LENGTH = 5
    PAYLOAD = 6
    NOT_READY = 7
    CHECKSUM_TYPE = 8


class BadFrame(Exception):
    """Bytes that are no frame; `error` is what an instrument answers to them."""

    def __init__(self, error: Error, text: str) -> None:
        super().__init__(text)
        self.error = error


@dataclass(frozen=True)
class Frame:
    """One message: type, payload, flags, error number, the host's number, whether MD5 is sent."""

    message: int
    payload: bytes = b""
    flags: Flag = NO_FLAG
    error: int = 0
    regarding: int = 0
    checksum: bool = False

    def pack(self) -> bytes:
        """Return the bytes of this message."""
        immediate = self.payload if len(self.payload) <= _IMMEDIATE else b""
        body = b"" if immediate else self.payload
        head = _HEADER.pack(
            START,
            VERSION,
            self.flags,
            self.error,
            self.message,
            self.regarding,
            _MD5 if self.checksum else 0,
            len(immediate),
            immediate,
            len(body) + FOOTER_BYTES,
        )
        digest = hashlib.md5(head + body, usedforsecurity=False).digest()
        return head + body + _FOOTER.pack(digest if self.checksum else b"", FOOTER)


def body_bytes(header: bytes) -> int:
    """Return how many bytes follow a header of 44 bytes; raise BadFrame for no header."""
    start, version, *_, remaining = _HEADER.unpack(header)
    if start != START or version != VERSION:
        text = f"start bytes {start:04x}, version {version:04x} instead of {START:04x}, "
        raise BadFrame(Error.PROTOCOL, text + f"{VERSION:04x}")
    if not FOOTER_BYTES <= remaining <= LONGEST_BODY:
        raise BadFrame(Error.TOO_LARGE, f"{remaining} bytes are to follow the header")
    return int(remaining)


def unpack(data: bytes) -> Frame:
    """Return the message in these bytes, one whole frame; raise BadFrame."""
    _, _, flags, error, message, regarding, kind, length, immediate, _ = _HEADER.unpack(
        data[:HEADER_BYTES]
    )
    if len(data) != HEADER_BYTES + body_bytes(data[:HEADER_BYTES]):
        raise BadFrame(Error.PAYLOAD_LENGTH, f"a frame of {len(data)} bytes")
    digest, footer = _FOOTER.unpack(data[-FOOTER_BYTES:])
    body = data[HEADER_BYTES:-FOOTER_BYTES]
    if footer != FOOTER:
        raise BadFrame(Error.PROTOCOL, f"footer {footer:08x} instead of {FOOTER:08x}")
    if kind not in (0, _MD5):
        raise BadFrame(Error.CHECKSUM_TYPE, f"checksum type {kind}")
    sums = hashlib.md5(data[:-FOOTER_BYTES], usedforsecurity=False)
    if kind == _MD5 and sums.digest() != digest:
        raise BadFrame(Error.CHECKSUM, "wrong checksum")
    if length > _IMMEDIATE or (length and body):
        raise BadFrame(Error.PAYLOAD_LENGTH, f"{length} immediate and {len(body)} other bytes")
    payload = immediate[:length] if length else body
    return Frame(message, payload, Flag(flags), error, regarding, kind == _MD5)

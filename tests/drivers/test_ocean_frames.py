"""Frames of the Ocean Binary Protocol: byte for byte, as seabreeze writes them, and back."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.spectrometers.ocean_frames import (
    FOOTER_BYTES,
    HEADER_BYTES,
    BadFrame,
    Error,
    Flag,
    Frame,
    Message,
    body_bytes,
    unpack,
)

ASK_FOR_SERIAL = bytes.fromhex(
    "c1c0 0011 0000 0000 00010000 00000000 000000000000 00 00"
    "00000000000000000000000000000000 14000000"
    "00000000000000000000000000000000 c5c4c3c2"
)
SET_10_MS = bytes.fromhex(
    "c1c0 0011 0400 0000 10001100 00000000 000000000000 00 04"
    "10270000000000000000000000000000 14000000"
    "00000000000000000000000000000000 c5c4c3c2"
)


def test_a_request_is_these_64_bytes():
    assert Frame(Message.GET_SERIAL).pack() == ASK_FOR_SERIAL
    time_us = struct.pack("<L", 10_000)
    frame = Frame(Message.SET_INTEGRATION_TIME_US, time_us, Flag.REQUEST_ACK)
    assert frame.pack() == SET_10_MS
    assert unpack(SET_10_MS) == frame


@pytest.mark.parametrize(
    ("message", "payload", "acknowledge"),
    [(0x100, b"", False), (0x180101, b"\x02", False), (0x110010, b"\x10\x27\0\0", True)],
)
def test_frames_are_those_of_seabreeze(message, payload, acknowledge):
    protocol = pytest.importorskip("seabreeze.pyseabreeze.protocol", reason="extra ocean")
    transport = pytest.importorskip("seabreeze.pyseabreeze.transport")
    line = transport.IPv4Transport(protocol.OBPProtocol)
    theirs = protocol.OBPProtocol(line)._construct_outgoing_message(message, payload, acknowledge)
    flags = Flag.REQUEST_ACK if acknowledge else Flag(0)
    assert Frame(message, payload, flags).pack() == theirs


def test_more_than_16_bytes_stand_behind_the_header():
    data = Frame(0x101000, bytes(range(17))).pack()
    assert len(data) == HEADER_BYTES + 17 + FOOTER_BYTES
    assert data[HEADER_BYTES : HEADER_BYTES + 17] == bytes(range(17))
    assert body_bytes(data[:HEADER_BYTES]) == 17 + FOOTER_BYTES


@given(
    message=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=100),
    error=st.integers(0, 255),
    regarding=st.integers(0, 2**32 - 1),
    checksum=st.booleans(),
)
def test_what_is_packed_is_unpacked(message, payload, error, regarding, checksum):
    frame = Frame(message, payload, Flag.RESPONSE, error, regarding, checksum)
    assert unpack(frame.pack()) == frame


@given(at=st.integers(0, 115), flip=st.integers(1, 255))
def test_with_a_checksum_no_changed_byte_goes_unnoticed(at, flip):
    data = bytearray(Frame(0x101000, bytes(52), Flag.RESPONSE, checksum=True).pack())
    assert len(data) == 116
    data[at] ^= flip
    if at == 22 and data[at] == 0:
        return  # says that there is none
    with pytest.raises(BadFrame):
        unpack(bytes(data))


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (0, 0, Error.PROTOCOL),
        (3, 0x10, Error.PROTOCOL),
        (22, 7, Error.CHECKSUM_TYPE),
        (23, 17, Error.PAYLOAD_LENGTH),
        (42, 0xFF, Error.TOO_LARGE),
        (40, 0, Error.TOO_LARGE),
        (40, 21, Error.PAYLOAD_LENGTH),
        (63, 0, Error.PROTOCOL),
    ],
)
def test_what_is_no_frame_has_the_instruments_own_error_number(at, value, error):
    data = bytearray(ASK_FOR_SERIAL)
    data[at] = value
    with pytest.raises(BadFrame) as caught:
        unpack(bytes(data))
    assert caught.value.error is error

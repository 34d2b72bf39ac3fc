"""Simulated instruments on real sockets: addresses, connections, requests, their end."""

import http.client
import socket

import httpx
import pytest

from drivers.mock.rig import optical_rig
from drivers.mock.serve.web import BODY_BYTES
from served import connected, port_of, send_for_ever, served


def test_every_instrument_has_an_address_but_those_without_a_network_wire(on_sockets):
    addresses = on_sockets[0].addresses
    assert list(addresses) == [
        "mock://optics/shaper",
        "mock://optics/spectrometer",
        "mock://optics/daq",
    ]
    assert addresses["mock://optics/shaper"].startswith("http://127.0.0.1:")
    assert addresses["mock://optics/spectrometer"].startswith("TCPIP0::127.0.0.1::")
    assert addresses["mock://optics/daq"] is None
    ports = {
        port_of(addresses["mock://optics/shaper"]),
        port_of(addresses["mock://optics/spectrometer"]),
        port_of(on_sockets[0].admin),
    }
    assert len(ports) == 3


def test_each_connection_logs_in_by_itself(visa_address):
    with connected(visa_address) as one, connected(visa_address) as other:
        one.sendall(b'OPEN "anonymous"\r\n')
        assert one.recv(99) == b"AUTHENTICATE CRAM-MD5.\r\n"
        other.sendall(b"*OPC?\r\n")  # not logged in: no answer
        one.sendall(b"\r\n")
        assert one.recv(99) == b"READY\r\n"
        one.sendall(b"*OP")
        one.sendall(b"C?\r\n")
        assert one.recv(99) == b"1\r\n"
        other.sendall(b'OPEN "anonymous"\r\n')
        assert other.recv(99) == b"AUTHENTICATE CRAM-MD5.\r\n"
        one.shutdown(socket.SHUT_WR)
        assert one.recv(99) == b""


def test_requests_of_one_connection_are_answered_in_order(url):
    get = b"GET /waveshaper/%s HTTP/1.1\r\nHost: shaper\r\n\r\n"
    with connected(url) as line:
        line.sendall(get % b"devinfo" + get % b"nothing")
        received = b""
        while b"not found" not in received:
            received += line.recv(4096)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.count(b"HTTP/1.1 404 Not Found\r\n") == 1
        line.sendall(get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"devinfo")
        received = b""
        while chunk := line.recv(4096):
            received += chunk
        assert b"portcount" in received


def test_a_client_may_wait_for_the_permission_to_go_on(url):
    head = b"POST /waveshaper/loadprofile HTTP/1.1\r\nHost: shaper\r\nExpect: 100-continue\r\n"
    with connected(url) as line:
        line.sendall(head + b"Content-Length: 2\r\n\r\n")
        assert line.recv(99).startswith(b"HTTP/1.1 100 ")
        line.sendall(b"{}")
        assert b"malformed" in line.recv(4096)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NOT HTTP AT ALL\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_told_so_and_closed(url, request_, status):
    with connected(url) as line:
        line.sendall(request_)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        assert answer.status == status
        answer.close()
    assert httpx.get(f"{url}/waveshaper/devinfo", trust_env=False).status_code == 200


def test_a_body_without_end_is_refused(url):
    head = b"POST /waveshaper/loadprofile HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with connected(url) as line:
        line.sendall(head % (2 * BODY_BYTES))
        with pytest.raises(OSError, match=r"reset|pipe"):  # by and by; the rest is not read
            send_for_ever(line)


def test_the_end_resets_who_is_connected(plant):
    rig = optical_rig(plant)
    with served({"optics": rig}, ["mock://optics/spectrometer"]) as there:
        line = connected(there.addresses["mock://optics/spectrometer"])
        line.sendall(b'OPEN "anonymous"\r\n')
        assert line.recv(99)
    with line, pytest.raises(ConnectionResetError):
        line.recv(99)
    with pytest.raises(ConnectionRefusedError):
        connected(there.addresses["mock://optics/spectrometer"])


def test_an_address_that_names_nothing(plant):
    with (
        pytest.raises(ValueError, match=r"mock://optics/scope: no such instrument .*spectrometer"),
        served({"optics": optical_rig(plant)}, ["mock://optics/scope"]),
    ):
        pass

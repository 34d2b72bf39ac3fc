"""Simulated instruments on real sockets: addresses, connections, requests, their end."""

import asyncio
import http.client
import socket
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.mock.faults import OrderQueue
from drivers.mock.rig import Rig, optical_rig
from drivers.mock.serve.web import BODY_BYTES, HttpConnection
from served import LIMIT_S, connected, port_of, send_for_ever, served


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


@pytest.mark.parametrize(("host", "shown"), [("localhost", "localhost"), ("0.0.0.0", "127.0.0.1")])
def test_a_host_of_several_addresses_is_one_with_one_port(plant, host, shown):
    with served({"optics": optical_rig(plant)}, ["mock://optics/shaper"], host=host) as there:
        address = there.addresses["mock://optics/shaper"]
        assert address.startswith(f"http://{shown}:")
        with socket.create_connection(("127.0.0.1", port_of(address)), timeout=LIMIT_S) as line:
            line.sendall(REQUESTS[0])
            assert line.recv(99).startswith(b"HTTP/1.1 404 ")


def test_an_address_that_names_nothing(plant):
    with (
        pytest.raises(ValueError, match=r"mock://optics/scope: no such instrument .*spectrometer"),
        served({"optics": optical_rig(plant)}, ["mock://optics/scope"]),
    ):
        pass


class Bytes(asyncio.Transport):
    """What a connection writes, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True


def talk(*chunks: bytes) -> tuple[bytes, bool]:
    """Return what an echoing instrument answers to these bytes, and whether it hangs up."""
    line = Bytes()
    connection = HttpConnection(
        lambda method, path, body: (299, "text/plain", f"{method} {path} ".encode() + body),
        OrderQueue(),
        set(),
    )
    connection.connection_made(line)
    for chunk in chunks:
        if not line.closed:
            connection.data_received(chunk)
    return line.written, line.closed


REQUESTS = [
    b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HEAD /d HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
]


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4), st.data())
def test_requests_may_arrive_in_any_pieces(requests, data):
    sent = b"".join(requests)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=8)))
    ends = [0, *cuts, len(sent)]
    whole = b"".join(talk(request)[0] for request in requests)
    assert talk(*(sent[a:b] for a, b in pairwise(ends))) == (whole, False)
    assert whole.count(b"HTTP/1.1 299 ") == len(requests)


CONNECT = b"CONNECT e:1 HTTP/1.1\r\nHost: x\r\n\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=50) | st.sampled_from([*REQUESTS, CONNECT]), max_size=5)
)
def test_no_bytes_are_too_strange_for_an_answer_or_an_end(chunks):
    written, closed = talk(*chunks)
    assert closed is (b"HTTP/1.1 4" in written)


def test_it_is_no_proxy():
    written, closed = talk(REQUESTS[0], CONNECT, REQUESTS[0])
    assert closed
    assert written.count(b"HTTP/1.1 299 ") == written.count(b"HTTP/1.1 405 ") == 1


def test_a_fault_of_the_firmware_itself_ends_its_connection_only(caplog):
    class Broken:
        def connect(self):
            return Broken()

        def receive(self, data):
            raise ZeroDivisionError(data)

        def close(self):
            pass

    rig = Rig(None, {"broken": Broken()})
    with served({"rig": rig}, ["mock://rig/broken"]) as there:
        for _ in range(2):
            with connected(there.addresses["mock://rig/broken"]) as line:
                line.sendall(b"hello")
                assert line.recv(99) == b""
    assert "ZeroDivisionError" in caplog.text

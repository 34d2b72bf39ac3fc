"""An exchange over HTTP ends in time, whatever the instrument does with its bytes."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from drivers.errors import InstrumentTimeout
from drivers.wires.http import exchange
from drivers.wires.http_client import timely_client

TIMEOUT_S = 0.3
PAUSE_S = 0.05  # between two bytes: no call to the system ever lasts long
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Return what lets one connection be served by a function, and returns the port."""
    with ExitStack() as stack:

        def serve(instrument: Callable[[socket.socket], None]) -> int:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def run() -> None:
                line, _ = server.accept()
                with line, suppress(OSError):  # the client has gone
                    instrument(line)

            thread = threading.Thread(target=run)
            thread.start()
            stack.callback(thread.join)
            return int(server.getsockname()[1])

        yield serve


def slowly(line: socket.socket, data: bytes) -> None:
    for byte in data:
        line.sendall(bytes([byte]))
        time.sleep(PAUSE_S)


def trickles_its_headers(line: socket.socket) -> None:
    line.recv(65536)
    slowly(line, HEAD + b"\r\n")
    line.sendall(bytes(100))


def trickles_its_answer(line: socket.socket) -> None:
    line.recv(65536)
    line.sendall(HEAD + b"\r\n")
    slowly(line, bytes(100))


def takes_its_time_to_read(line: socket.socket) -> None:
    for _ in range(20):
        line.recv(4096)
        time.sleep(PAUSE_S)


@pytest.mark.parametrize(
    "instrument", [trickles_its_headers, trickles_its_answer, takes_its_time_to_read]
)
def test_an_exchange_that_goes_on_and_on_ends_in_time(serve, instrument) -> None:
    with timely_client(f"http://127.0.0.1:{serve(instrument)}", TIMEOUT_S) as client:
        request = client.build_request("POST", "/", content=bytes(16 << 20))
        with pytest.raises(InstrumentTimeout, match=r"wsp: load: no answer within 0\.3 s"):
            exchange(client, request, name="wsp", asked="load")


def answers(line: socket.socket) -> None:
    for _ in range(2):
        line.recv(65536)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_each_exchange_has_the_whole_time(serve) -> None:
    with timely_client(f"http://127.0.0.1:{serve(answers)}", TIMEOUT_S) as client:
        for _ in range(2):  # over one connection
            request = client.build_request("GET", "/")
            assert exchange(client, request, name="wsp", asked="get") == b"ok"
            time.sleep(TIMEOUT_S)

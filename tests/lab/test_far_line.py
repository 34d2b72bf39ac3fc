"""Lines to processes on other machines: only who knows the key gets one."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from lab.jobs.far_line import FarLine, accepted, connected, listen_for_one

KEY = b"k" * 32
LIMIT_S = 10.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen_for_one("127.0.0.1") as listener:
        yield listener


@pytest.fixture
def ends(listener: socket.socket) -> Iterator[tuple[FarLine, FarLine]]:
    """Return a line's end in the service and its other end, which has not read the greeting."""
    with ThreadPoolExecutor() as other:
        calling = other.submit(connected, *listener.getsockname(), KEY)
        here = accepted(listener, KEY, "hello")
        there = calling.result()
    assert here is not None
    yield here, there
    here.close()
    there.close()


def test_what_is_said_arrives_both_ways(ends: tuple[FarLine, FarLine]) -> None:
    here, there = ends
    assert there.connection.recv() == "hello"
    large = b"x" * 10_000_000
    with ThreadPoolExecutor() as other:
        sending = other.submit(here.connection.send, large)
        assert there.connection.recv() == large
        sending.result()
    time.sleep(1.5)  # longer than a proof may take
    there.connection.send(("metric", 1))
    assert here.connection.recv() == ("metric", 1)


def test_who_reads_hears_of_a_cut_line(ends: tuple[FarLine, FarLine]) -> None:
    here, there = ends
    there.connection.recv()
    with ThreadPoolExecutor() as other:
        reading = [other.submit(end.connection.recv) for end in ends]
        here.cut()
        for end in reading:
            assert isinstance(end.exception(LIMIT_S), EOFError)
    here.cut()


def test_another_key_gets_no_line_and_says_so(listener: socket.socket) -> None:
    with ThreadPoolExecutor() as other:
        calling = other.submit(connected, *listener.getsockname(), b"another")
        assert accepted(listener, KEY, "hello") is None
        with pytest.raises(ConnectionError, match="not the service that asked for this process"):
            calling.result()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 9], ids=repr)
def test_a_stranger_is_not_waited_for(listener: socket.socket, said: bytes) -> None:
    with socket.create_connection(listener.getsockname()) as stranger:
        stranger.sendall(said)
        began_s = time.monotonic()
        assert accepted(listener, KEY, "hello") is None
        assert time.monotonic() - began_s < LIMIT_S
        stranger.settimeout(LIMIT_S)
        heard = b""
        with suppress(ConnectionResetError):  # it has said more than was read
            while more := stranger.recv(1000):
                heard += more
        assert b"hello" not in heard


def test_who_does_not_get_through_says_where_to() -> None:
    with listen_for_one("127.0.0.1") as listener:
        host, port = listener.getsockname()
    with pytest.raises(ConnectionError, match=f"from .* to {host}, port {port}: .*refused"):
        connected(host, port, KEY)

"""Lines between a service and trainer processes on other machines: TCP, opened with a key.

Both ends prove that they know the key before anything is read that could do harm. What is said
later is not encrypted. A far end that has lost its power or its network is noticed within 11 s.
"""

import multiprocessing
import os
import platform
import socket
import struct
from contextlib import suppress
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

_PROOF_S = 1.0  # for each message of a proof
_CONNECT_S = 10.0
_QUIET_S, _ASK_S, _ASKED = 5, 2, 3  # asked after so much silence, so often, until it is given up


class FarLine:
    """One end of a line; whoever has it closes it.

    connection: for one reader and one writer at a time.
    """

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected socket."""
        self._socket = connected
        self.connection = Connection(os.dup(connected.fileno()))

    def cut(self) -> None:
        """Let both ends read its end, also who reads now; from any thread, not after `close`."""
        with suppress(OSError):  # the far end has cut it
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; idempotent."""
        self.connection.close()
        self._socket.close()


def listen_for_one(host: str) -> socket.socket:
    """Listen at a free port of this machine's address `host`; raise OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def accepted(listener: socket.socket, key: bytes, greeting: object) -> FarLine | None:
    """Return the line to who has connected, greeted; None where that one does not know the key."""
    try:
        line = _proven(listener.accept()[0], key, asks_first=True)
    except OSError:  # it has gone again
        return None
    if line is not None:
        try:
            line.connection.send(greeting)
        except OSError:
            line.close()
            return None
    return line


def connected(host: str, port: int, key: bytes) -> FarLine:
    """Return the line to who listens there; raise ConnectionError, also if that is another."""
    way = f"from {platform.node()} to {host}, port {port}"
    try:
        found = socket.create_connection((host, port), _CONNECT_S)
    except OSError as error:
        raise ConnectionError(f"{way}: {error}") from error
    line = _proven(found, key, asks_first=False)
    if line is None:
        raise ConnectionError(f"{way}: not the service that asked for this process")
    return line


def _proven(found: socket.socket, key: bytes, *, asks_first: bool) -> FarLine | None:
    found.settimeout(None)
    _wait_at_most(found, _PROOF_S)
    line = FarLine(found)
    proofs = [deliver_challenge, answer_challenge]
    try:
        for prove in proofs if asks_first else reversed(proofs):
            prove(line.connection, key)
        _wait_at_most(found, 0)
        _notice_its_end(found)
    except (multiprocessing.AuthenticationError, AssertionError, EOFError, OSError):
        line.close()
        return None
    return line


def _wait_at_most(found: socket.socket, seconds: float) -> None:
    """Let reads and writes fail after so long; 0: never."""
    whole = int(seconds)
    limit = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _notice_its_end(found: socket.socket) -> None:
    """Let reads fail when the far end is out of reach; and send short messages at once."""
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_S)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_S)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ASKED)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # of what was sent and not confirmed
        limit_ms = 1000 * (_QUIET_S + _ASK_S * _ASKED)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)

"""A byte-stream firmware on a loopback port, one thread a connection; for tests of real sockets."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from drivers.mock.faults import ConnectionDropped


@contextlib.contextmanager
def served(firmware: Any) -> Iterator[int]:
    """Serve `firmware.connect()` sessions until the block ends; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    lines: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            lines.append(line)
            threads.append(threading.Thread(target=talk, args=(line, firmware.connect())))
            threads[-1].start()

    def talk(line: socket.socket, session: Any) -> None:
        with line, contextlib.suppress(OSError, ConnectionDropped):
            while data := line.recv(65536):
                line.sendall(session.receive(data))

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

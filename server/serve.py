"""Run the service as one process: socket, signals, and a safe state on every way out."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from lab.errors import ConfigError

# Threads that compute hold the interpreter for at most so long while the event loop waits for it.
SWITCH_INTERVAL_S = 0.001
_EVERY_ADDRESS = ("0.0.0.0", "::")
_GOODBYE_S = 10  # for connections to end once jobs and passes have ended

_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


def serve(
    app: FastAPI,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    advertise: str | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; return when the instruments are safe.

    on_ready(url) is called when requests are answered; of a service that listens on every address
    the URL is that by which others reach it. Port 0 takes a free one. advertise: where
    the other services of the same database reach this one (default: by the machine's name). Raises
    ConfigError if the address cannot be used or the bench cannot be opened.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        port = listener.getsockname()[1]
        everywhere = host in _EVERY_ADDRESS
        named = socket.gethostname() if everywhere else shown
        url = advertise or f"http://{named}:{port}"
        told = url if everywhere else f"http://{shown}:{port}"
        server = LabServer(app, lambda: on_ready(told), url)
        with _stopped_by_signals(server):
            asyncio.run(run(server, app, listener))


async def run(server: "LabServer", app: FastAPI, listener: socket.socket) -> None:
    """Open the lab, serve it until the server is told to exit, and close it in any case."""
    # The lifespan stands here and not inside uvicorn, so that its errors come out as they are,
    # and so that even a forced exit passes through its end.
    async with app.router.lifespan_context(app):
        await server.serve(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise ConfigError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}") from error
    # Connections inherit it. An answer goes out in two pieces, head and body; the second would wait
    # for the far end to acknowledge the first, which takes its time (40 ms) to do so.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class LabServer(uvicorn.Server):
    """uvicorn, but it ends jobs and passes before it waits for connections to end."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None], url: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=_GOODBYE_S,
            )
        )
        self._app = app
        self._on_ready = on_ready
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        await self._app.state.lab.jobs.reached_at(self._url)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what runs, which also ends the event streams that follow it; then shut down."""
        await self._app.state.lab.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `_stopped_by_signals`, which covers start-up and end too."""
        yield


@contextmanager
def _stopped_by_signals(server: LabServer) -> Iterator[None]:
    """Let signals end the server instead of the process, for as long as instruments are in use."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, _Handler] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        # who started us ignoring a signal (nohup) wants it ignored
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, server.handle_exit)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

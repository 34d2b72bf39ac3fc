"""Simulated instruments on real sockets of this machine."""

import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drivers.mock.faults import ConnectionDropped


class Server(socketserver.ThreadingTCPServer):
    """A loopback server of one firmware."""

    daemon_threads = True
    allow_reuse_address = True
    firmware = None


class ScpiHandler(socketserver.BaseRequestHandler):
    def handle(self):
        session = self.server.firmware.connect()
        while data := self.request.recv(4096):
            try:
                self.request.sendall(session.receive(data))
            except ConnectionDropped:
                return


class HttpHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name):
        if name in ("do_GET", "do_POST"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            status, kind, content = self.server.firmware.handle(self.command, self.path, body)
        except ConnectionDropped:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@contextmanager
def loopback() -> Iterator[Callable[..., int]]:
    """Yield what serves firmware, serve(handler, firmware), on a free port and returns the port."""
    servers = []

    def serve(handler, firmware):
        server = Server(("127.0.0.1", 0), handler)
        server.firmware = firmware
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()

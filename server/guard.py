"""What is refused before a request is looked at: web pages of other origins, and large bodies.

The service knows no users yet and trusts whoever reaches it. A browser on the same machine reaches
it too, on behalf of whatever page is open there; pages must not drive the instruments.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lab.problems import PREFIX
from server.errors import problem_response

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware.

    local_only: refuse requests for a host name that is not the loopback's; a page whose name was
    made to point at this machine sends its own. max_body_bytes: refuse larger
    bodies, announced or not.
    """

    def __init__(self, app: ASGIApp, *, local_only: bool, max_body_bytes: int) -> None:
        self._app = app
        self._local_only = local_only
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], Headers(scope=scope))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            receive = self._counted(receive)
        await self._app(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        """Return `receive` with the body cut off at the limit, whatever length was announced."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body_bytes:
                raise HTTPException(413, f"a body has at most {self._max_body_bytes} bytes")
            return message

        return counted

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._local_only and urlsplit(f"//{host}").hostname not in LOCAL_NAMES:
            return _refuse(421, "misdirected-request", f"this service is not '{host}'")
        if method not in _READING and origin is not None and urlsplit(origin).netloc != host:
            return _refuse(403, "forbidden", f"a page of {origin} may not drive this service")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            text = f"{length} bytes are more than the {self._max_body_bytes} that a body may have"
            return _refuse(413, "content-too-large", text)
        return None


def _refuse(status: int, kind: str, detail: str) -> Response:
    return problem_response(status, PREFIX + kind, detail)

"""What is refused before a request is looked at: web pages of other origins, and large bodies.

The service knows no users yet and trusts whoever reaches it and knows its secret, if it has one
(`server.shared_secret`). A browser on the same machine reaches
it too, on behalf of whatever page is open there; pages must not drive the instruments.
"""

from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lab.config import UPLOAD_BYTES
from lab.loopback import is_loopback
from server.errors import status_problem

# The event loop parses these bodies itself, and meanwhile nothing else: 64 KiB take a few ms.
CONFIG_BODY_BYTES = 64 * 2**10
_LONGEST_LENGTH = 18  # digits: what is longer is too large, and maybe too long for `int`
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Doorkeeper:
    """ASGI middleware.

    local_only: refuse requests for a host name that is not the loopback's; a page whose name was
    made to point at this machine sends its own. max_body_bytes: refuse larger passes; data sets
    have at most UPLOAD_BYTES, all other bodies are configs and have at most CONFIG_BODY_BYTES.
    Bodies are counted, announced or not.
    """

    def __init__(self, app: ASGIApp, *, local_only: bool, max_body_bytes: int) -> None:
        self._app = app
        self._local_only = local_only
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        if scope["type"] == "http":
            limit = self._body_limit(scope["path"])
            refusal = self._refusal(scope["method"], Headers(scope=scope), limit)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            receive = _counted(receive, limit)
        await self._app(scope, receive, send)

    def _body_limit(self, path: str) -> int:
        if path.endswith("/datasets"):
            return UPLOAD_BYTES
        large = path.endswith("/passes")
        return self._max_body_bytes if large else min(CONFIG_BODY_BYTES, self._max_body_bytes)

    def _refusal(self, method: str, headers: Headers, limit: int) -> Response | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        authority = _split(f"//{host}")
        if authority is None:
            return status_problem(400, f"'{host}' is not a host")
        if self._local_only and not is_loopback(authority.hostname or ""):
            return status_problem(421, f"this service is not '{host}'")
        if method not in _READING and origin is not None and not _is_page_of(host, origin):
            return status_problem(403, f"a page of {origin} may not drive this service")
        length = headers.get("content-length", "0").lstrip("0") or "0"
        if length.isdecimal() and (len(length) > _LONGEST_LENGTH or int(length) > limit):
            shown = length if len(length) <= _LONGEST_LENGTH else f"1e{len(length) - 1} or more"
            text = f"{shown} bytes are more than the {limit} that a body may have"
            return status_problem(413, text)
        return None


def _is_page_of(host: str, origin: str) -> bool:
    parts = _split(origin)
    return parts is not None and parts.netloc == host


def _split(address: str) -> SplitResult | None:
    """Split an address, or return None for one that cannot be: `[::1` lacks its bracket."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


def _counted(receive: Receive, limit: int) -> Receive:
    """Return `receive` with the body cut off at the limit, whatever length was announced."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413, f"a body has at most {limit} bytes")
        return message

    return counted

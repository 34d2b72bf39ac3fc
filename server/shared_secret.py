"""Whoever does not know the shared secret is refused."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import status_problem

# What tells nothing and changes nothing, and is asked by what has no secrets: a container's
# health check, a load balancer.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_REALM = 'Bearer realm="pnnlab"'
_MISSING = (
    "this service asks for its shared secret, and none was shown: set PNNLAB_SECRET or "
    "PNNLAB_SECRET_FILE, or send the header 'Authorization: Bearer SECRET'"
)
_WRONG = "what was shown is not the shared secret of this service (PNNLAB_SECRET)"


class SharedSecret:
    """ASGI middleware: answer 401 to requests without the secret, before anything of them is read.

    Every path is closed but `OPEN_PATHS`, also those that lead nowhere. Without a secret it lets
    everything pass.
    """

    def __init__(self, app: ASGIApp, *, secret: str | None) -> None:
        self._app = app
        self._secret = None if secret is None else secret.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        if scope["type"] == "lifespan" or self._secret is None or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        shown = _shown(Headers(scope=scope))
        if shown is not None and hmac.compare_digest(shown, self._secret):
            await self._app(scope, receive, send)
            return
        refusal = status_problem(401, _MISSING if shown is None else _WRONG)
        error = "" if shown is None else ', error="invalid_token"'
        refusal.headers["WWW-Authenticate"] = _REALM + error
        await refusal(scope, receive, send)


def _shown(headers: Headers) -> bytes | None:
    """Return what a request shows as the secret, None if it shows nothing."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" else None

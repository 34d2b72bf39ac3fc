"""Answer every error as problem details (RFC 9457, application/problem+json).

`STATUS` is the one table of exception -> HTTP status. What is not in it is a fault of the service:
500, with nothing of its insides in the answer.
"""

import json
import logging
import math
from collections.abc import Sequence
from http.client import responses
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from drivers.errors import (
    Aborted,
    ConnectionLost,
    DriverError,
    IdentityError,
    InstrumentRefused,
    InstrumentTimeout,
    LimitError,
    ProtocolError,
    ReplayError,
)
from lab.errors import (
    CheckpointRefused,
    ConfigError,
    Conflict,
    DatabaseAway,
    DataError,
    DeadlineMissed,
    LabError,
    NotPermitted,
    PartsFailed,
    PassCancelled,
    PassTimeout,
    QueueFull,
    ReservationLost,
    Stopped,
    Superseded,
    SystemClosed,
    SystemFaulted,
    SystemStopped,
    TrainerDied,
    UnknownName,
    WrongThread,
)
from lab.problems import INVALID_REQUEST, PREFIX, problem_type

log = logging.getLogger(__name__)

STATUS: dict[type[Exception], int] = {
    LimitError: 422,
    ConnectionLost: 502,
    ProtocolError: 502,
    InstrumentRefused: 502,
    IdentityError: 502,
    ReplayError: 502,
    InstrumentTimeout: 504,
    Aborted: 503,
    DriverError: 502,
    ConfigError: 422,
    UnknownName: 404,
    PassCancelled: 409,
    Conflict: 409,
    CheckpointRefused: 409,
    ReservationLost: 409,
    Stopped: 409,
    Superseded: 409,
    QueueFull: 429,
    # both: the instruments behind this service had no result in the time that the client gave
    DeadlineMissed: 504,
    PassTimeout: 504,
    SystemFaulted: 503,
    SystemStopped: 503,
    NotPermitted: 503,
    SystemClosed: 503,
    DatabaseAway: 503,
    DataError: 500,
    TrainerDied: 500,
    PartsFailed: 500,
    WrongThread: 500,
    LabError: 500,
}

MEDIA_TYPE = "application/problem+json"

# RFC 9110's names, which Python's own table has from 3.13 on
_PHRASES = {
    **responses,
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


class InvalidRequest(Exception):
    """A request that cannot be read: `errors` says where, as RFC 9457 shows in its example."""

    def __init__(self, detail: str, errors: Sequence[dict[str, str]] = ()) -> None:
        super().__init__(detail)
        self.errors = errors


def add_error_handlers(app: FastAPI) -> None:
    """Let the app answer every error as problem details."""
    for kind in (DriverError, LabError):
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidRequest, _unreadable)
    app.add_exception_handler(UnicodeEncodeError, _half_a_character)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


def field_errors(errors: Sequence[Any]) -> list[dict[str, str]]:
    """Return pydantic's errors as {detail, pointer} (body) or {detail, parameter} (elsewhere)."""
    return [_field_error(tuple(error["loc"]), error["msg"]) for error in errors]


def _field_error(location: tuple[str | int, ...], message: str) -> dict[str, str]:
    place, *path = location or ("body",)
    if place in ("query", "path", "header", "cookie"):
        return {"detail": message, "parameter": ".".join(map(str, path))}
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return {"detail": message, "pointer": "#" + "".join(f"/{part}" for part in escaped)}


def problem_response(status: int, kind: str, detail: str, **extra: Any) -> JSONResponse:
    """Return an error as problem details; `extra` are its further members."""
    content = {
        "type": kind,
        "title": kind.removeprefix(PREFIX).replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        **extra,
    }
    return _Problem(content, status)


class _Problem(JSONResponse):
    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """Write JSON; half a character, which JSON can quote and no text can hold, escaped."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


def status_problem(status: int, detail: str) -> JSONResponse:
    """Return an error of HTTP itself as problem details, named after its status."""
    # 499, for a client that has gone away, is in use but in no standard
    phrase = _PHRASES.get(status, f"Status {status}")
    return problem_response(status, PREFIX + phrase.lower().replace(" ", "-"), detail)


async def _known(request: Request, error: Exception) -> JSONResponse:
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    extra: dict[str, Any] = {}
    if isinstance(error, QueueFull | DatabaseAway):
        return _later(error, status)
    if isinstance(error, DriverError):
        extra["instrument"] = error.instrument
    if isinstance(error, LimitError):
        extra["errors"] = [{"detail": str(error), "pointer": f"#/{error.quantity}"}]
    if status == 500:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
    return problem_response(status, problem_type(type(error)), str(error), **extra)


def _later(error: QueueFull | DatabaseAway, status: int) -> JSONResponse:
    """Say when to come back: to the second in the header, as HTTP has it, exactly in the body."""
    kind, after_s = problem_type(type(error)), error.retry_after_s
    response = problem_response(status, kind, error.reason, retry_after_s=after_s)
    response.headers["Retry-After"] = str(math.ceil(after_s))
    return response


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = field_errors(error.errors())
    return _unreadable_problem("; ".join(_sentence(e) for e in errors), errors)


async def _unreadable(request: Request, error: Exception) -> JSONResponse:
    errors = error.errors if isinstance(error, InvalidRequest) else ()
    return _unreadable_problem(str(error), errors)


async def _half_a_character(request: Request, error: Exception) -> JSONResponse:
    return _unreadable_problem(f"a text with half a character, which cannot be kept: {error}", [])


def _unreadable_problem(detail: str, errors: Sequence[dict[str, str]]) -> JSONResponse:
    return problem_response(422, INVALID_REQUEST, detail, errors=list(errors))


def _sentence(error: dict[str, str]) -> str:
    place = error.get("parameter") or error.get("pointer", "").removeprefix("#/").replace("/", ".")
    return f"{place}: {error['detail']}" if place else error["detail"]


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    detail = f"{request.method} {request.url.path}: {error.detail}"
    response = status_problem(error.status_code, detail)
    response.headers.update(error.headers or {})
    return response


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    """Answer; the server logs the error with its traceback."""
    return problem_response(500, PREFIX + "internal-error", "the service failed; its log says more")

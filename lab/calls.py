"""HTTP calls to a lab service; what it answers as an error is raised as the error that it names."""

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

import httpx

import lab.errors
from lab.errors import ConfigError, DatabaseAway, LabError, QueueFull
from lab.events import Event, read_events
from lab.loopback import is_loopback
from lab.problems import INVALID_REQUEST, problem_type
from lab.secret import authorisation

API = "/api/v1"
PATIENT_TIMEOUT = httpx.Timeout(30.0, read=None)  # rows wait for other clients' rows
_TIMEOUT = httpx.Timeout(30.0)
_PINGED_TIMEOUT = httpx.Timeout(30.0, read=60.0)  # the service pings an idle stream every 15 s

_KNOWN: dict[str, type[LabError]] = {
    problem_type(kind): kind
    for kind in vars(lab.errors).values()
    if isinstance(kind, type) and issubclass(kind, LabError)
} | {INVALID_REQUEST: ConfigError}


class ServiceError(LabError):
    """An error answer; `status` is HTTP's (0: no answer at all), `problem` the details."""

    def __init__(self, message: str, status: int = 0, problem: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.status = status
        self.problem = dict(problem or {})


def asking_headers(name: str, secret: str | None) -> dict[str, str]:
    """Return the headers that say who asks, and show the secret if there is one."""
    return {"Pnnlab-Client": name, **authorisation(secret)}


class Calls:
    """The API of the service at `url`, which is told that `name` asks, and the secret."""

    def __init__(self, url: str, name: str, secret: str | None = None) -> None:
        self._url = url
        self._http = httpx.Client(
            base_url=f"{url}{API}",
            headers=asking_headers(name, secret),
            timeout=_TIMEOUT,
            follow_redirects=False,  # the secret is for this address only
            # a proxy of the laboratory's network cannot reach this machine's own loopback
            trust_env=not is_loopback(httpx.URL(url).host),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a request; raise the error that it names, or ServiceError."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error
        if not response.is_success:
            raise _error(response)
        return response

    def answer(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return the JSON object that a request is answered with; raise as `call`."""
        found: dict[str, Any] = self.call(method, path, **options).json()
        return found

    def listed(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """Return the JSON objects that a GET lists; raise as `call`."""
        found: list[dict[str, Any]] = self.call("GET", path, params=params).json()
        return found

    def download(self, path: str, file: IO[bytes], **options: Any) -> None:
        """Write what a GET answers into a file, piece by piece; raise as `call`."""
        try:
            with self._http.stream("GET", path, **options) as response:
                if response.is_error:
                    response.read()
                    raise _error(response)
                for piece in response.iter_bytes():
                    file.write(piece)
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    def events(self, job_id: str, since: int) -> Iterator[Event]:
        """Yield a job's events after step `since` until the stream ends; raise as `call`."""
        headers = {"Last-Event-ID": str(since), "Accept": "text/event-stream"}
        path = f"/jobs/{job_id}/events"
        try:
            with self._http.stream(
                "GET", path, headers=headers, timeout=_PINGED_TIMEOUT
            ) as response:
                if not response.is_success:
                    response.read()
                    raise _error(response)
                yield from read_events(response.iter_lines())
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: httpx.HTTPError) -> ServiceError:
        return ServiceError(f"no answer from {self._url} ({error or type(error).__name__})")


def _error(response: httpx.Response) -> LabError:
    return named_error(
        response.status_code,
        response.content,
        f"{response.request.url}: HTTP {response.status_code} {response.reason_phrase}",
    )


def named_error(status: int, content: bytes, otherwise: str) -> LabError:
    """Return the error that an answer's body names; `otherwise` is the text for one without."""
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return ServiceError(otherwise, status)
    kind = _KNOWN.get(str(problem.get("type")))
    if kind is QueueFull or kind is DatabaseAway:
        return kind(problem["detail"], float(problem["retry_after_s"]))
    if kind is not None:
        return kind(problem["detail"])
    return ServiceError(str(problem["detail"]), status, problem)

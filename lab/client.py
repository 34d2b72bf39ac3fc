"""Talk to a lab service from a notebook or a script: neither torch nor drivers are needed.

    with Client("http://127.0.0.1:8000") as lab:
        job = lab.submit({"task": "vowels", "method": "pat-refit"})
        for event in lab.watch(job["id"]):
            print(event.kind, event.data)

Errors that the service names come back as the same classes of `lab.errors`; the others, among
them those of instruments, as ServiceError.
"""

import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

import lab.errors
from lab.config import TrainConfig
from lab.errors import ConfigError, LabError
from lab.events import Event, read_events
from lab.jobs.data_folder import write_whole
from lab.jobs.records import FitConfig
from lab.loopback import is_loopback
from lab.problems import INVALID_REQUEST, problem_type

M = TypeVar("M", bound=BaseModel)

_API = "/api/v1"
_NPZ = "application/x-npz"
_TIMEOUT = httpx.Timeout(30.0)
_PINGED_TIMEOUT = httpx.Timeout(30.0, read=60.0)  # the service pings an idle stream every 15 s
_PATIENT_TIMEOUT = httpx.Timeout(30.0, read=None)  # rows wait for other clients' rows
_RECONNECTS = 5
_FIRST_PAUSE_S = 0.1

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


class Client:
    """A lab service at `url`; blocking, for one thread at a time. Close it, or use `with`."""

    def __init__(self, url: str = "http://127.0.0.1:8000", *, name: str = "python") -> None:
        """`name` says who asks, in the service's listings."""
        base = httpx.URL(url)
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=f"{self.url}{_API}",
            headers={"Pnnlab-Client": name},
            timeout=_TIMEOUT,
            # a proxy of the laboratory's network cannot reach this machine's own loopback
            trust_env=not is_loopback(base.host),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # systems

    def systems(self) -> list[dict[str, Any]]:
        """List the systems: arrays with unit, range and shape; health and duty cycle."""
        found: list[dict[str, Any]] = self._call("GET", "/systems").json()
        return found

    def system(self, name: str) -> dict[str, Any]:
        """Describe one system; raise UnknownName."""
        return self._object("GET", f"/systems/{name}")

    def recover(self, system: str) -> dict[str, Any]:
        """Restart a faulted system and return its status; raise what the restart raised."""
        return self._object("POST", f"/systems/{system}/recover", timeout=_PATIENT_TIMEOUT)

    def measure(
        self, system: str, x: ArrayLike, theta: ArrayLike, *, priority: int = 0
    ) -> dict[str, Any]:
        """Measure rows: x (rows, ...) and theta (rows, ...) in physical units.

        Returns y (rows, ...) and saturated (rows,) as arrays, first_shot, pass_id, system and
        the times submitted_s, started_s, finished_s. Raises SystemFaulted, ServiceError (among
        them refused values, status 422, and failed instruments, 502 and 504), ...
        """
        file = io.BytesIO()
        np.savez(file, x=np.asarray(x), theta=np.asarray(theta))
        response = self._call(
            "POST",
            f"/systems/{system}/passes",
            params={"priority": priority},
            content=file.getvalue(),
            headers={"Content-Type": _NPZ, "Accept": _NPZ},
            timeout=_PATIENT_TIMEOUT,
        )
        with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
            return {name: _unwrapped(arrays[name]) for name in arrays.files}

    # twins

    def fit_twin(
        self, config: Mapping[str, Any] | FitConfig | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Start a fit (system, kind, rows, seed, task) and return its job.

        The job's result has the twin's id (`twin`) and its `report`.
        """
        return self._object("POST", "/twins", json=_body(FitConfig, config, fields))

    def twins(self, limit: int = 100) -> list[dict[str, Any]]:
        """List the newest twins, newest first."""
        found: list[dict[str, Any]] = self._call("GET", "/twins", params={"limit": limit}).json()
        return found

    def twin(self, twin_id: str) -> dict[str, Any]:
        """Return a twin with its report; raise UnknownName."""
        return self._object("GET", f"/twins/{twin_id}")

    # jobs

    def submit(
        self, config: Mapping[str, Any] | TrainConfig | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Start a training job from a config, fields of it, or both; return the job."""
        return self._object("POST", "/jobs", json=_body(TrainConfig, config, fields))

    def jobs(self, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """List the newest jobs, newest first, of one state if given."""
        params = {"limit": limit} | ({} if state is None else {"state": state})
        found: list[dict[str, Any]] = self._call("GET", "/jobs", params=params).json()
        return found

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job; raise UnknownName."""
        return self._object("GET", f"/jobs/{job_id}")

    def metrics(self, job_id: str, since: int = 0) -> list[dict[str, Any]]:
        """Return all metrics after step `since`: [{"step": 1, "metric": {...}}, ...]."""
        found: list[dict[str, Any]] = []
        while True:
            since = found[-1]["step"] if found else since
            page = self._call("GET", f"/jobs/{job_id}/metrics", params={"since": since}).json()
            found += page
            if not page:
                return found

    def watch(self, job_id: str, since: int = 0) -> Iterator[Event]:
        """Yield what happens to a job until its end; see `Event`.

        Reconnects where the connection is lost, and goes on after the last metric seen. Raises
        UnknownName, or ServiceError when the service stays away.
        """
        lost = 0
        while True:
            try:
                for event in self._events(job_id, since):
                    lost = 0
                    since = event.step or since
                    yield event
                    if event.kind == "end":
                        return
                raise ServiceError("the service ended the stream before the job's end")
            except ServiceError as error:
                lost += 1
                if error.status or lost > _RECONNECTS:
                    raise
                time.sleep(_FIRST_PAUSE_S * 2**lost)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job and return it as it is now; raise UnknownName, Conflict if it has ended."""
        return self._object("POST", f"/jobs/{job_id}/cancel")

    def result(self, job_id: str) -> dict[str, Any]:
        """Return a job's result; raise UnknownName, Conflict while there is none."""
        return self._object("GET", f"/jobs/{job_id}/result")

    def checkpoint(self, job_id: str, path: Path | str) -> Path:
        """Download a training job's network to `path`; raise UnknownName, Conflict."""
        content = self._call("GET", f"/jobs/{job_id}/checkpoint").content
        write_whole(Path(path), lambda file: file.write(content))
        return Path(path)

    def _object(self, method: Literal["GET", "POST"], path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._call(method, path, **options).json()
        return found

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error
        if response.is_error:
            raise _error(response)
        return response

    def _events(self, job_id: str, since: int) -> Iterator[Event]:
        headers = {"Last-Event-ID": str(since), "Accept": "text/event-stream"}
        path = f"/jobs/{job_id}/events"
        try:
            with self._http.stream(
                "GET", path, headers=headers, timeout=_PINGED_TIMEOUT
            ) as response:
                if response.is_error:
                    response.read()
                    raise _error(response)
                yield from read_events(response.iter_lines())
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: httpx.HTTPError) -> ServiceError:
        return ServiceError(f"no answer from {self.url} ({error or type(error).__name__})")


def _body(
    kind: type[M], config: Mapping[str, Any] | BaseModel | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON body; the service checks it, and says better what is wrong with it."""
    if isinstance(config, BaseModel) and not isinstance(config, kind):
        raise TypeError(f"a {kind.__name__} is needed, not a {type(config).__name__}")
    plain = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    return {**(plain or {}), **fields}


def _error(response: httpx.Response) -> LabError:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        text = f"{response.request.url}: HTTP {response.status_code} {response.reason_phrase}"
        return ServiceError(text, response.status_code)
    kind = _KNOWN.get(str(problem.get("type")))
    if kind is not None:
        return kind(problem["detail"])
    return ServiceError(str(problem["detail"]), response.status_code, problem)


def _unwrapped(array: NDArray[Any]) -> Any:
    return array if array.ndim else array.item()

"""Talk to a lab service from a notebook or a script: neither torch nor drivers are needed.

    with Client("http://127.0.0.1:8000") as lab:
        job = lab.submit({"task": "vowels", "method": "pat-refit"})
        for event in lab.watch(job["id"]):
            print(event.kind, event.data)

Errors that the service names come back as the same classes of `lab.errors`; the others, among
them those of instruments, as ServiceError.
"""

import getpass
import io
import math
import os
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from lab.calls import Calls, ServiceError
from lab.config import TrainConfig
from lab.errors import ConfigError, DatabaseAway, QueueFull, SystemClosed
from lab.events import Event
from lab.held_reservation import HeldReservation
from lab.jobs.configs import CalibrateConfig, CompareConfig, EvaluateConfig
from lab.jobs.data_folder import write_whole
from lab.jobs.kinds import JobConfig
from lab.jobs.records import FitConfig, JobKind
from lab.jobs.schedules.records import Missed, Overlap
from lab.secret import checked_secret, secret_of_environment
from lab.uploading import read_upload

__all__ = ["Client", "ServiceError", "client_name"]

M = TypeVar("M", bound=BaseModel)

_NPZ = "application/x-npz"
_PATIENT_TIMEOUT = httpx.Timeout(30.0, read=None)  # rows wait for other clients' rows
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


@contextmanager
def _written_at(path: Path) -> Iterator[None]:
    """Raise ConfigError where the block cannot write what should stand at `path`."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Give a folder that ends with the block, on the disk of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as name:
        yield Path(name)


def client_name() -> str:
    """Return who asks unless it says otherwise: PNNLAB_CLIENT, or else user@host, in ASCII."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        user = "unknown"
    name = os.environ.get("PNNLAB_CLIENT") or f"{user}@{socket.gethostname()}"
    return name.encode("ascii", "replace").decode()


def checked_name(name: str | None) -> str:
    """Return a client's name, the default for None; raise ConfigError unless printable ASCII."""
    name = client_name() if name is None else name
    if not (name.isascii() and name.isprintable()):
        raise ConfigError(f"a client's name is printable ASCII, not {name!r}")
    return name


def checked_key(key: str) -> str:
    """Return an idempotency key; raise ConfigError unless printable ASCII."""
    if not (key and key.isascii() and key.isprintable()):
        raise ConfigError(f"a key is printable ASCII, at least one character, not {key!r}")
    return key


class Client:
    """A lab service at `url`; blocking, for one thread at a time. Close it, or use `with`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        name: str | None = None,
        secret: str | None = None,
    ) -> None:
        """`name` says who asks, whose share of the hardware is used; default: `client_name()`.

        secret: the one that the service shares; default: the environment's, if it has one. Raises
        ConfigError for a name that is not printable ASCII, or an impossible secret.
        """
        self.url = url.rstrip("/")
        self.name = checked_name(name)
        self._secret = (
            secret_of_environment() if secret is None else checked_secret(secret, "secret")
        )
        self._calls = Calls(self.url, self.name, self._secret)

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()

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
        return self._list("/systems")

    def system(self, name: str) -> dict[str, Any]:
        """Describe one system; raise UnknownName."""
        return self._object("GET", f"/systems/{name}")

    def recover(self, system: str) -> dict[str, Any]:
        """Restart a faulted or stopped system and return its status; raise what that raised."""
        return self._object("POST", f"/systems/{system}/recover", timeout=_PATIENT_TIMEOUT)

    def stop(self) -> dict[str, Any]:
        """Put every system into its safe state at once, whoever holds it, and out of use.

        Returns `confirmed`, and `systems` with each instrument's outcome: "safe", or why that is
        not confirmed. `recover` takes a system into use again.
        """
        return self._object("POST", "/stop", timeout=_PATIENT_TIMEOUT)

    def measure(
        self,
        system: str,
        x: ArrayLike,
        theta: ArrayLike,
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        timeout_s: float | None = None,
        repeatable: bool = True,
        on_fault: Literal["wait", "fail"] = "wait",
        reservation: int | None = None,
        patience_s: float = 60.0,
    ) -> dict[str, Any]:
        """Measure rows: x (rows, ...) and theta (rows, ...) in physical units.

        Options as in `lab.measurement.ForwardPass`. patience_s: for so long a full queue is
        waited for and asked again, as it says; 0 raises QueueFull at once.

        Returns arrays with one entry a row (y, saturated, retried, out_of_sync, shots, row_s),
        and pass_id, system, calibration, submitted_s, started_s and finished_s. Raises
        QueueFull, DeadlineMissed, PassTimeout, ReservationLost, SystemFaulted, ServiceError
        (among them refused values, status 422, and failed instruments, 502 and 504), ...
        """
        file = io.BytesIO()
        np.savez(file, x=np.asarray(x), theta=np.asarray(theta))
        options = {
            "priority": priority,
            "deadline_s": deadline_s,
            "timeout_s": timeout_s,
            "repeatable": repeatable,
            "on_fault": on_fault,
            "reservation": reservation,
        }
        response = self._once_let_in(
            patience_s,
            f"/systems/{system}/passes",
            params={name: value for name, value in options.items() if value is not None},
            content=file.getvalue(),
            headers={"Content-Type": _NPZ, "Accept": _NPZ},
            timeout=_PATIENT_TIMEOUT,
        )
        with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
            return {name: _unwrapped(arrays[name]) for name in arrays.files}

    def queue(self, system: str, limit: int = 100) -> dict[str, Any]:
        """Return who runs and waits on a system, the next to finish first, with estimates."""
        return self._object("GET", f"/systems/{system}/queue", params={"limit": limit})

    # reservations and calibrations

    def reserve(
        self, system: str, ttl_s: float = 30.0, owner: str | None = None
    ) -> HeldReservation:
        """Reserve a system for ttl_s seconds (1 to 3600) from now and from each heartbeat.

        As a context manager it sends the heartbeats and releases the system at the end. Raises
        UnknownName, Conflict while it is reserved, ConfigError for a ttl_s out of range.
        """
        body = {"ttl_s": ttl_s, "owner": self.name if owner is None else owner}
        path = f"/systems/{system}/reservation"
        granted = self._object("POST", path, json=body, timeout=_PATIENT_TIMEOUT)
        # a client serves one thread, and the heartbeats have their own
        return HeldReservation(granted, self._another)

    def heartbeat(self, system: str, number: int) -> dict[str, Any]:
        """Let a reservation live on and return it; raise ReservationLost, UnknownName."""
        return self._object("POST", f"/systems/{system}/reservation/{number}/heartbeat")

    def release(self, system: str, number: int) -> None:
        """End a reservation and the passes under it; raise ReservationLost, UnknownName."""
        self._calls.call("DELETE", f"/systems/{system}/reservation/{number}")

    def set_calibration(
        self, system: str, name: str, reservation: int | None = None
    ) -> dict[str, Any]:
        """Name the calibration in force and return the system's status.

        A reserved system takes it from whoever names the reservation's number only: raises
        Conflict, ReservationLost, UnknownName.
        """
        body = {"name": name, "reservation": reservation}
        return self._object("PUT", f"/systems/{system}/calibration", json=body)

    # data sets

    def datasets(self) -> list[dict[str, Any]]:
        """List the tasks that a config may name: the built-in ones, then the uploads by name."""
        return self._list("/datasets")

    def upload_dataset(
        self, data: Path | str | Mapping[str, ArrayLike], name: str | None = None
    ) -> dict[str, Any]:
        """Upload a data set and return what the service knows of it; its `task` is for configs.

        data: an npz or CSV file, or the arrays: features (rows, d), labels (rows,), and groups
        and test (rows,) if there are. name: shown in listings; default: the file's, or "arrays".

        Raises ConfigError that says what is wrong with the data, or with their size.
        """
        content, found_name = read_upload(data)
        return self._object(
            "POST",
            "/datasets",
            params={"name": found_name if name is None else name},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
            timeout=_PATIENT_TIMEOUT,
        )

    # twins

    def fit_twin(
        self,
        config: Mapping[str, Any] | FitConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a fit (system, kind, rows, seed, task) and return its job.

        The job's result has the twin's id (`twin`) and its `report`. dry_run, key, tags: as in
        `submit`.
        """
        return self._submit("/twins", _body(FitConfig, config, fields), dry_run, key, tags)

    def twins(self, limit: int = 100) -> list[dict[str, Any]]:
        """List the newest twins, newest first."""
        return self._list("/twins", limit=limit)

    def twin(self, twin_id: str) -> dict[str, Any]:
        """Return a twin with its report; raise UnknownName."""
        return self._object("GET", f"/twins/{twin_id}")

    # jobs

    def submit(
        self,
        config: Mapping[str, Any] | TrainConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a training job from a config, fields of it, or both; return the job.

        dry_run: start nothing, and return what it would cost: `rows` by purpose, `seconds`, ...
        key: the same key answers with the same job, however often it is asked for. tags: to find it
        by. Raises Conflict where the key belongs to a job with another config.
        """
        return self._submit("/jobs", _body(TrainConfig, config, fields), dry_run, key, tags)

    def calibrate(
        self,
        config: Mapping[str, Any] | CalibrateConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a calibration (system, rows, name, apply, ...) and return its job."""
        return self._submit(
            "/calibrations", _body(CalibrateConfig, config, fields), dry_run, key, tags
        )

    def evaluate(
        self,
        config: Mapping[str, Any] | EvaluateConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a test of a training job's network (job, samples, ...) and return its job."""
        return self._submit(
            "/evaluations", _body(EvaluateConfig, config, fields), dry_run, key, tags
        )

    def compare(
        self,
        config: Mapping[str, Any] | CompareConfig | None = None,
        *,
        dry_run: bool = False,
        key: str | None = None,
        tags: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, Any]:
        """Start a comparison (system, task, methods, controls, seeds, ...) and return its job.

        Its parts are jobs of their own: `jobs(parent=job["id"])`. Options as in `submit`.
        """
        return self._submit(
            "/comparisons", _body(CompareConfig, config, fields), dry_run, key, tags
        )

    def jobs(
        self,
        state: str | None = None,
        limit: int = 100,
        tag: str | None = None,
        parent: str | None = None,
    ) -> list[dict[str, Any]]:
        """List the newest jobs, newest first; if given of one state, tag or comparison."""
        wanted = {"state": state, "tag": tag, "parent": parent}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        return self._list("/jobs", limit=limit, **chosen)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job; raise UnknownName."""
        return self._object("GET", f"/jobs/{job_id}")

    def metrics(self, job_id: str, since: int = 0) -> list[dict[str, Any]]:
        """Return all metrics after step `since`: [{"step": 1, "metric": {...}}, ...]."""
        found: list[dict[str, Any]] = []
        while True:
            since = found[-1]["step"] if found else since
            page = self._list(f"/jobs/{job_id}/metrics", since=since)
            found += page
            if not page:
                return found

    def watch(self, job_id: str, since: int = 0, *, patience_s: float = 60.0) -> Iterator[Event]:
        """Yield what happens to a job until its end; see `Event`.

        Reconnects where the connection is lost, and goes on after the last metric seen. patience_s:
        for so long a service that does not answer is asked again: it may be starting anew. Raises
        UnknownName, or what the last try raised (ServiceError, DatabaseAway, SystemClosed).
        """
        pause_s, until = _FIRST_PAUSE_S, math.inf
        while True:
            try:
                for event in self._calls.events(job_id, since):
                    pause_s, until = _FIRST_PAUSE_S, math.inf
                    since = event.step or since
                    yield event
                    if event.kind == "end":
                        return
                raise ServiceError("the service ended the stream before the job's end")
            except (ServiceError, DatabaseAway, SystemClosed) as error:
                until = min(until, time.monotonic() + patience_s)
                refused = isinstance(error, ServiceError) and error.status
                if refused or time.monotonic() + pause_s > until:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def pause(self, job_id: str) -> dict[str, Any]:
        """Pause a job and return it as it is now; raise UnknownName, Conflict if it has ended."""
        return self._object("POST", f"/jobs/{job_id}/pause")

    def go_on(self, job_id: str, **changes: Any) -> dict[str, Any]:
        """Continue a job that was paused, failed or was cancelled, from its last checkpoint.

        changes: epochs, rows, rate_theta, rate_digital, priority, deadline_s; what is left out
        stays. Raises UnknownName, ConfigError, Conflict (it is in another state).
        """
        return self._object("POST", f"/jobs/{job_id}/continue", json=changes)

    def cancel(self, job_id: str, *, at_once: bool = False) -> dict[str, Any]:
        """Cancel a job and return it as it is now; raise UnknownName, Conflict if it has ended.

        at_once: what it computes is broken off, without a checkpoint of where it stopped.
        """
        params = {"at_once": "true"} if at_once else {}
        return self._object("POST", f"/jobs/{job_id}/cancel", params=params)

    def provenance(self, job_id: str) -> dict[str, Any]:
        """Return where a job's numbers come from; raise UnknownName, Conflict before its start."""
        return self._object("GET", f"/jobs/{job_id}/provenance")

    def rerun(
        self, job_id: str, *, key: str | None = None, tags: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Start the same job again; return the new `job`, and its `differences` in words.

        key: as in `submit`. tags: default: the job's. Raises UnknownName, and what submitting it
        raises.
        """
        return self._submit(f"/jobs/{job_id}/rerun", None, False, key, tags)

    def result(self, job_id: str) -> dict[str, Any]:
        """Return a job's result; raise UnknownName, Conflict while there is none."""
        return self._object("GET", f"/jobs/{job_id}/result")

    def checkpoint(self, job_id: str, path: Path | str) -> Path:
        """Download a training job's network to `path`; raise UnknownName, Conflict."""
        content = self._calls.call("GET", f"/jobs/{job_id}/checkpoint").content
        write_whole(Path(path), lambda file: file.write(content))
        return Path(path)

    # schedules

    def add_schedule(
        self,
        name: str,
        cron: str,
        kind: JobKind = "train",
        config: Mapping[str, Any] | JobConfig | None = None,
        *,
        time_zone: str | None = None,
        missed: Missed = "once",
        overlap: Overlap = "skip",
        tags: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Start a job at every tick of a cron expression, and return the schedule.

        Options as in `lab.jobs.schedules.records.ScheduleConfig`. Raises ConfigError, UnknownName,
        Conflict if there is a schedule of this name.
        """
        plain = _plain(config)
        body = {"name": name, "cron": cron, "time_zone": time_zone, "kind": kind, "config": plain}
        options = {"missed": missed, "overlap": overlap, "tags": list(tags)}
        return self._object("POST", "/schedules", json=body | options)

    def schedules(self) -> list[dict[str, Any]]:
        """List the schedules, by name."""
        return self._list("/schedules")

    def schedule(self, name: str) -> dict[str, Any]:
        """Return a schedule with its next ticks and newest jobs; raise UnknownName."""
        return self._object("GET", f"/schedules/{name}")

    def pause_schedule(self, name: str) -> dict[str, Any]:
        """Let no more ticks of a schedule run and return it; raise UnknownName."""
        return self._object("POST", f"/schedules/{name}/pause")

    def continue_schedule(self, name: str) -> dict[str, Any]:
        """Let a paused schedule's ticks run from now on and return it; raise UnknownName."""
        return self._object("POST", f"/schedules/{name}/continue")

    def run_schedule(self, name: str) -> dict[str, Any]:
        """Start a schedule's job now and return the job; raise what submitting it raises."""
        return self._object("POST", f"/schedules/{name}/run")

    def remove_schedule(self, name: str) -> None:
        """Forget a schedule; its jobs stay and go on. Raises UnknownName."""
        self._calls.call("DELETE", f"/schedules/{name}")

    # data out

    def recorded(self, job_id: str) -> dict[str, Any]:
        """Say what is recorded of a job's rows: `rows`, `bytes`, and `notes` on what is missing."""
        return self._object("GET", f"/jobs/{job_id}/recorded")

    def rows(self, job_id: str, path: Path | str) -> Path:
        """Download a job's measured rows so far, for `lab.recording.reading.open_rows`.

        path: a Zarr group, as one file if it ends in .zip, else as a folder, which must not be
        there. Raises UnknownName, or Conflict where there are none.
        """
        target = Path(path)
        if target.suffix == ".zip":
            self._download(f"/jobs/{job_id}/rows", target)
            return target
        if target.exists():
            raise ConfigError(f"{target}: is there already")
        with _written_at(target), _folder_beside(target) as temporary:
            packed = temporary / "rows.zarr.zip"
            self._download(f"/jobs/{job_id}/rows", packed)
            unpacked = temporary / "rows.zarr"
            with zipfile.ZipFile(packed) as file:
                file.extractall(unpacked)
            unpacked.rename(target)
        return target

    def metrics_csv(self, job_id: str, path: Path | str, kind: str | None = None) -> Path:
        """Download a job's metrics so far, of one kind if given, as comma-separated values."""
        chosen = {} if kind is None else {"kind": kind}
        self._download(f"/jobs/{job_id}/metrics.csv", Path(path), params=chosen)
        return Path(path)

    def _download(self, url: str, path: Path, **options: Any) -> None:
        """Write an answer into a file that is whole or not there."""
        patient = {"timeout": _PATIENT_TIMEOUT, **options}
        with _written_at(path):
            write_whole(path, lambda file: self._calls.download(url, file, **patient))

    def _another(self) -> "Client":
        return Client(self.url, name=self.name, secret=self._secret)

    def _once_let_in(self, patience_s: float, path: str, **options: Any) -> httpx.Response:
        """POST until the queue has room; raise QueueFull once patience_s would be over."""
        until = time.monotonic() + patience_s
        while True:
            try:
                return self._calls.call("POST", path, **options)
            except QueueFull as full:
                if time.monotonic() + full.retry_after_s > until:
                    raise
                time.sleep(full.retry_after_s)

    def _submit(
        self,
        path: str,
        body: dict[str, Any] | None,
        dry_run: bool,
        key: str | None,
        tags: Sequence[str],
    ) -> dict[str, Any]:
        options: dict[str, Any] = {"params": {"tag": list(tags)}, "timeout": _PATIENT_TIMEOUT}
        if dry_run:
            options["params"]["dry_run"] = "true"
        if key is not None:
            options["headers"] = {"Idempotency-Key": checked_key(key)}
        return self._object("POST", path, json=body, **options)

    def _list(self, path: str, **params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._calls.call("GET", path, params=params).json()
        return found

    def _object(
        self, method: Literal["GET", "POST", "PUT"], path: str, **options: Any
    ) -> dict[str, Any]:
        found: dict[str, Any] = self._calls.call(method, path, **options).json()
        return found


def _body(
    kind: type[M], config: Mapping[str, Any] | BaseModel | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON body; the service checks it, and says better what is wrong with it."""
    if isinstance(config, BaseModel) and not isinstance(config, kind):
        raise TypeError(f"a {kind.__name__} is needed, not a {type(config).__name__}")
    return {**_plain(config), **fields}


def _plain(config: Mapping[str, Any] | BaseModel | None) -> dict[str, Any]:
    """Return what a config sets; what it leaves out the service chooses by system and task."""
    if isinstance(config, BaseModel):
        return config.model_dump(mode="json", exclude_unset=True)
    return dict(config or {})


def _unwrapped(array: NDArray[Any]) -> Any:
    return array if array.ndim else array.item()

"""What the routes answer, as plain models."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from drivers.row_key import KEY_NUMBERS
from drivers.spec import ArraySpec
from lab.jobs.records import JobRecord
from lab.measurement import OnFault
from lab.scheduling.reservations import TTL_S
from lab.scheduling.safe_state import SystemStop
from lab.scheduling.status import QueuedPass, SystemStatus
from lab.systems.base import SystemDescription


class ArrayView(BaseModel):
    """One array: shape of a row, inclusive range and unit, what is sent of a value."""

    name: str
    unit: str
    shape: tuple[int, ...]
    low: float
    high: float
    dtype: str
    decimals: int | None

    @classmethod
    def of(cls, spec: ArraySpec) -> "ArrayView":
        """Show a spec."""
        return cls.model_validate(spec, from_attributes=True)


class SystemView(BaseModel):
    """One system: its arrays in physical units, the real time of a row, its health.

    drives: what x and theta are. family: the bench file's `system`. bench: checksum of all in the
    bench file that may change what is measured.
    """

    name: str
    x: ArrayView
    theta: ArrayView
    y: ArrayView
    row_time_s: float
    drives: Literal["channels", "series"]
    family: str
    bench: str
    simulated: bool
    status: SystemStatus

    @classmethod
    def of(
        cls,
        description: SystemDescription,
        status: SystemStatus,
        *,
        family: str,
        bench: str,
        simulated: bool,
    ) -> "SystemView":
        """Show a system."""
        return cls(
            name=description.name,
            x=ArrayView.of(description.x),
            theta=ArrayView.of(description.theta),
            y=ArrayView.of(description.y),
            row_time_s=description.row_time_s,
            drives=description.drives,
            family=family,
            bench=bench,
            simulated=simulated,
            status=status,
        )


class StoppedSystem(BaseModel):
    """What a stop did to one system; instruments: "safe", or why that is not confirmed."""

    name: str
    reason: str
    instruments: dict[str, str]


class StopView(BaseModel):
    """What a stop did; confirmed: every instrument of every system is in its safe state."""

    confirmed: bool
    systems: list[StoppedSystem]

    @classmethod
    def of(cls, stops: Sequence[SystemStop]) -> "StopView":
        """Show the outcome of a stop."""
        systems = [StoppedSystem.model_validate(s, from_attributes=True) for s in stops]
        return cls(confirmed=all(s.confirmed for s in stops), systems=systems)


CLIENT_LENGTH = 200

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
KeyNumber = Annotated[int, Field(ge=0, lt=KEY_NUMBERS)]
KeyTime = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PassOptions(BaseModel):
    """How rows are measured; members of a JSON body, query parameters beside an npz body.

    priority: higher goes first. client: whose share of the hardware it uses (default: the header
    Pnnlab-Client). deadline_s: when the result is of no more use, seconds since the epoch.
    timeout_s: longest time from the first row to the last. repeatable: whether rows that a fault
    interrupted may be measured once more. on_fault: while the system is faulted, wait for its
    recovery, or fail at once. reservation: the number of the reservation under which it runs.
    job: what the rows are part of; one client's jobs take turns. attempt: which attempt at the job
    measures; one that does not count any more is refused. depth: of one job's passes the deepest
    goes first.
    """

    model_config = ConfigDict(extra="forbid")

    priority: int = Field(0, ge=-100, le=100)
    client: str = Field("", max_length=CLIENT_LENGTH)
    deadline_s: Seconds | None = None
    timeout_s: Seconds | None = None
    repeatable: bool = True
    on_fault: OnFault = "wait"
    reservation: int | None = None
    job: str = Field("", max_length=CLIENT_LENGTH)
    attempt: int = Field(0, ge=0)
    depth: int = Field(0, ge=0, le=2**31 - 1)


class PassRequest(PassOptions):
    """Rows for one system in physical units: x (rows, ...) and theta (rows, ...).

    key_stream, key_index, key_time_s (rows,): the rows' keys, on a simulated bench; all or none.
    """

    x: list[list[float]]
    theta: list[list[float]]
    key_stream: list[KeyNumber] | None = None
    key_index: list[KeyNumber] | None = None
    key_time_s: list[KeyTime] | None = None


class MeasurementView(BaseModel):
    """A measured pass: y (rows, ...) in the unit of the system's y; times since the epoch, s.

    saturated, retried, out_of_sync, shots and row_s have one entry a row.
    """

    pass_id: str
    system: str
    y: list[list[float]]
    saturated: list[bool]
    retried: list[bool]
    out_of_sync: list[bool]
    shots: list[int]
    row_s: list[float]
    calibration: str
    submitted_s: float
    started_s: float
    finished_s: float


class QueueView(BaseModel):
    """Who runs and waits on a system, the next to finish first; see SystemStatus, QueuedPass.

    waiting and waiting_rows count all that wait, `passes` is cut at the limit asked for.
    """

    system: str
    row_time_s: float | None
    waiting: int
    waiting_rows: int
    passes: list[QueuedPass]

    @classmethod
    def of(cls, status: SystemStatus, passes: list[QueuedPass]) -> "QueueView":
        """Show a system's queue."""
        return cls(
            system=status.name,
            row_time_s=status.row_time_s,
            waiting=status.waiting,
            waiting_rows=status.waiting_rows,
            passes=passes,
        )


class ReservationRequest(BaseModel):
    """Have a system for oneself: until ttl_s seconds after the last heartbeat.

    owner: shown to the others (default: the header Pnnlab-Client).
    """

    model_config = ConfigDict(extra="forbid")

    ttl_s: float = Field(ge=TTL_S[0], le=TTL_S[1])
    owner: str = Field("", max_length=CLIENT_LENGTH)


class CalibrationRequest(BaseModel):
    """Name the calibration in force (empty: none); measurements carry it.

    reservation: the number of the system's reservation, needed while there is one.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=CLIENT_LENGTH)
    reservation: int | None = None


class JobChanges(BaseModel):
    """What may change of a job that is continued; what is left out stays as it was."""

    model_config = ConfigDict(extra="forbid")

    epochs: int | None = None
    rows: int | None = None
    rate_theta: float | None = None
    rate_digital: float | None = None
    priority: int | None = None
    deadline_s: float | None = None


class Rerun(BaseModel):
    """A job that was started as another one was; differences: what it has other, in words."""

    job: JobRecord
    differences: list[str]


class Problem(BaseModel):
    """An error (RFC 9457); `errors` names the fields at fault."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


class Health(BaseModel):
    """Whether the service answers, and the state of each system."""

    status: Literal["ok", "degraded"]
    version: str
    systems: dict[str, str]


class Readiness(BaseModel):
    """Whether the service can do all that it is there for; reasons: what stands in the way."""

    ready: bool
    reasons: list[str]

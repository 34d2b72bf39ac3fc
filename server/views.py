"""What the routes answer, as plain models."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from drivers.spec import ArraySpec
from lab.scheduling.status import SystemStatus
from lab.systems.base import SystemDescription


class ArrayView(BaseModel):
    """One array: shape of a row, inclusive range and unit."""

    name: str
    unit: str
    shape: tuple[int, ...]
    low: float
    high: float
    dtype: str

    @classmethod
    def of(cls, spec: ArraySpec) -> "ArrayView":
        """Show a spec."""
        return cls.model_validate(spec, from_attributes=True)


class SystemView(BaseModel):
    """One system: its arrays in physical units, the real time of a row, its health."""

    name: str
    x: ArrayView
    theta: ArrayView
    y: ArrayView
    row_time_s: float
    simulated: bool
    status: SystemStatus

    @classmethod
    def of(
        cls, description: SystemDescription, status: SystemStatus, *, simulated: bool
    ) -> "SystemView":
        """Show a system."""
        return cls(
            name=description.name,
            x=ArrayView.of(description.x),
            theta=ArrayView.of(description.theta),
            y=ArrayView.of(description.y),
            row_time_s=description.row_time_s,
            simulated=simulated,
            status=status,
        )


class PassRequest(BaseModel):
    """Rows for one system in physical units: x (rows, ...) and theta (rows, ...).

    priority: higher goes first. client: who asks, for the queue's listing
    (default: the header Pnnlab-Client).
    """

    model_config = ConfigDict(extra="forbid")

    x: list[list[float]]
    theta: list[list[float]]
    priority: int = 0
    client: str = ""


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

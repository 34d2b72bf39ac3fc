"""What a lab's service answers to a trainer elsewhere: its systems as values, errors as raised."""

from dataclasses import dataclass
from typing import Literal, NoReturn

from pydantic import BaseModel, ValidationError

import drivers.errors
from drivers.errors import DriverError, LimitError
from drivers.spec import ArraySpec
from lab.calls import ServiceError, named_error
from lab.problems import problem_type
from lab.systems.base import SystemDescription

_OF_INSTRUMENTS: dict[str, type[DriverError]] = {
    problem_type(kind): kind
    for kind in vars(drivers.errors).values()
    if isinstance(kind, type) and issubclass(kind, DriverError)
}


@dataclass(frozen=True)
class RemoteSystem:
    """A system of another machine.

    family: its name in SYSTEMS, or an import path over there. bench: checksum of all in the bench
    file that may change what is measured. simulated: whether its noise follows from row keys.
    """

    description: SystemDescription
    family: str
    bench: str
    simulated: bool


class _Array(BaseModel):
    name: str
    unit: str
    shape: tuple[int, ...]
    low: float
    high: float
    dtype: str
    decimals: int | None

    def spec(self) -> ArraySpec:
        """Return it without limits of rows, which are checked where the instruments are."""
        return ArraySpec(**self.model_dump())


class _System(BaseModel):
    name: str
    x: _Array
    theta: _Array
    y: _Array
    row_time_s: float
    drives: Literal["channels", "series"]
    family: str
    bench: str
    simulated: bool


def read_system(content: bytes) -> RemoteSystem:
    """Read the answer to GET /systems/NAME; raise ServiceError for one of another version."""
    try:
        found = _System.model_validate_json(content)
        description = SystemDescription(
            found.name,
            found.x.spec(),
            found.theta.spec(),
            found.y.spec(),
            found.row_time_s,
            found.drives,
        )
    except (ValidationError, ValueError) as error:
        raise ServiceError(f"this is no system as this version knows them: {error}") from error
    return RemoteSystem(description, found.family, found.bench, found.simulated)


def raise_named(status: int, content: bytes, url: str) -> NoReturn:
    """Raise the error that an answer names: the lab's, an instrument's, or else ServiceError."""
    error = named_error(status, content, f"{url}: HTTP {status}")
    if isinstance(error, ServiceError):
        kind = _OF_INSTRUMENTS.get(str(error.problem.get("type")))
        if kind is not None:
            raise _of_instrument(kind, error)
    raise error


def _of_instrument(kind: type[DriverError], error: ServiceError) -> DriverError:
    instrument = str(error.problem.get("instrument"))
    message = str(error).removeprefix(f"{instrument}: ")
    if issubclass(kind, LimitError):
        quantity, _, message = message.partition(": ")
        return kind(instrument, quantity, message)
    return kind(instrument, message)

"""Build the simulated rigs that a bench file describes."""

from collections.abc import Mapping
from typing import Any, Protocol

from drivers.import_path import imported
from drivers.mock.physics.circuit import CircuitPlant
from drivers.mock.physics.optics import OpticalPlant
from drivers.mock.physics.optics_drift import DeclaredDrift
from drivers.mock.physics.plate import OscillatingPlate
from drivers.mock.remote import TIMEOUT_S, RemoteRig
from drivers.mock.rig import Rig, circuit_rig, optical_rig, plate_rig
from drivers.transport.addresses import MOCK
from drivers.transport.streams import open_http

_PLANTS = "optics, circuit, plate"


class RigSettings(Protocol):
    """What a bench file says of one simulated rig; see `drivers.mock` for the plants."""

    @property
    def plant(self) -> str:
        """Say which physics: `optics`, `circuit`, `plate`, or what builds a rig, `module:name`."""
        ...

    @property
    def gap(self) -> float:
        """Give the departure from the textbook, 0 to 3."""
        ...

    @property
    def noise(self) -> float:
        """Give the factor on every noise source."""
        ...

    @property
    def device_seed(self) -> int:
        """Say which specimen of the device."""
        ...

    @property
    def seed(self) -> int:
        """Give the seed of the noise."""
        ...

    @property
    def honour_times(self) -> bool:
        """Say whether sweeps take their real time."""
        ...

    @property
    def drift_per_hour(self) -> float:
        """Give the share of the plant's drift ranges that goes in an hour of simulated time."""
        ...

    @property
    def drift_from_s(self) -> float:
        """Give the simulated time at which that drift begins."""
        ...

    @property
    def admin(self) -> str | None:
        """Say where `pnnlab mock` serves this rig; None for one in memory."""
        ...


def open_rigs(
    settings: Mapping[str, RigSettings], row_times_s: Mapping[str, float] | None = None
) -> dict[str, Rig]:
    """Build the simulated rigs by name; one with `admin` is in another process, not connected yet.

    Raises ValueError for a plant that does not exist or has no drift to declare.

    A plant `module:name` is called with device_seed, gap, noise and seed and returns a `Rig`;
    raises TypeError if it does not.

    row_times_s: by address, what an instrument's part of a row takes where times are honoured.
    """
    times = row_times_s or {}
    return {name: _open_rig(name, rig, times) for name, rig in settings.items()}


def _open_rig(name: str, settings: RigSettings, row_times_s: Mapping[str, float]) -> Rig:
    if settings.admin is not None:
        return RemoteRig(name, open_http(settings.admin, {}, timeout_s=TIMEOUT_S))
    dials: dict[str, Any] = {
        "device_seed": settings.device_seed,
        "gap": settings.gap,
        "noise": settings.noise,
        "seed": settings.seed,
    }
    if settings.plant == "optics":
        sweep_time_s = row_times_s.get(f"{MOCK}{name}/spectrometer", 0.0)
        drift = DeclaredDrift(settings.drift_per_hour, settings.drift_from_s)
        return optical_rig(
            OpticalPlant(**dials, drift=drift),
            sweep_time_s=sweep_time_s if settings.honour_times else 0.0,
            honour_times=settings.honour_times,
        )
    if settings.drift_per_hour and (
        settings.plant in ("circuit", "plate") or ":" in settings.plant
    ):
        raise ValueError(
            f"rigs.{name}.drift_per_hour: {settings.drift_per_hour:g} for the plant "
            f"'{settings.plant}', which has no drift to declare (optics only)"
        )
    if settings.plant == "circuit":
        return circuit_rig(CircuitPlant(**dials), honour_times=settings.honour_times)
    if settings.plant == "plate":
        return plate_rig(OscillatingPlate(**dials), honour_times=settings.honour_times)
    if ":" in settings.plant:
        return _import_rig(f"rigs.{name}.plant", settings.plant, dials)
    raise ValueError(f"rigs.{name}.plant: no plant '{settings.plant}' (there are: {_PLANTS})")


def _import_rig(key: str, path: str, dials: Mapping[str, Any]) -> Rig:
    try:
        rig = imported(path)(**dials)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not isinstance(rig, Rig):
        raise TypeError(f"{key}: '{path}' returns a {type(rig).__name__}, not a Rig")
    return rig

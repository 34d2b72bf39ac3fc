"""What a user writes of the bench: the bench file (TOML).

Imports neither torch nor drivers, so that the command line and a guard process start fast.
"""

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from lab.errors import ConfigError

_MOCK = "mock://"
_IN_MEMORY = (_MOCK, "replay://")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RigConfig(_Strict):
    """The simulated physics behind `mock://<rig>/<instrument>` addresses.

    plant: which physics, `optics`, `circuit`, `plate` or `module:name`, which builds a rig.
    gap: 0 (the textbook) to 3, scales every departure from the textbook model.
    noise: factor on every noise source, 1 as documented.
    device_seed: which specimen of the device; seed: the noise streams.
    honour_times: wait the declared settling and sweep times, as the real bench would.
    drift_per_hour: share of the plant's drift ranges that goes in an hour of simulated time, from
    drift_from_s on (s); optics only.
    admin: where `pnnlab mock` serves this rig; its instruments then have real addresses.
    """

    plant: str = "optics"
    gap: float = Field(1.0, ge=0, le=3)
    noise: float = Field(1.0, ge=0, le=100)
    device_seed: int = Field(0, ge=0, lt=2**63)
    seed: int = Field(0, ge=0, lt=2**63)
    honour_times: bool = False
    drift_per_hour: float = Field(0.0, ge=0, le=1)
    drift_from_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    admin: str | None = Field(None, pattern=r"^http://[^/\s]+/?$")


_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Limit = Annotated[
    Annotated[tuple[_Number, _Number], Tag("pair")] | Annotated[dict[str, _Number], Tag("table")],
    Discriminator(lambda limit: "table" if isinstance(limit, dict) else "pair"),
]


class InstrumentConfig(_Strict):
    """One instrument: driver (a name of `lab.openers.DRIVERS` or `module:opener`) and address.

    settings are passed to the driver's constructor; limits narrow those that it declares, never
    widen them: of each quantity (low, high), or a table of low, high and what else the driver
    limits (rms, slew, ...).
    timeout_s is the longest that one wire call may block; long operations are polled.
    row_time_s is the real time this instrument adds to a row (settling or sweep).
    rig: the simulated rig that it stands on, where the address does not say so.
    """

    driver: str
    address: str
    expect_idn: str | None = None
    timeout_s: float = Field(2.0, gt=0, le=2)
    row_time_s: float = Field(0.0, ge=0)
    settings: dict[str, Any] = {}
    limits: dict[str, Limit] = {}
    rig: str | None = None

    @property
    def is_in_memory(self) -> bool:
        """Whether it lives in the process that opens it: simulated, or a recording."""
        return self.address.startswith(_IN_MEMORY)

    @model_validator(mode="before")
    @classmethod
    def _rig_by_address(cls, data: Any) -> Any:
        """Let a `mock://` address say on which rig the instrument stands."""
        address = data.get("address") if isinstance(data, dict) else None
        if not isinstance(address, str) or not address.startswith(_MOCK):
            return data
        rig = address.removeprefix(_MOCK).partition("/")[0]
        if data.get("rig") not in (None, rig):
            raise ValueError(f"rig '{data['rig']}', but the address is one of rig '{rig}'")
        return {**data, "rig": rig}


class SystemConfig(_Strict):
    """One physical system: class (a name of SYSTEMS or `module:Class`) and its instruments.

    shot_period_s: measure one row (or batch) every so often, with idle shots where none waits,
    so that the instruments keep an even temperature.
    """

    system: str
    instruments: dict[str, str]
    limits: dict[str, tuple[float, float]] = {}
    shot_period_s: float | None = Field(None, gt=0, le=3600)


class SchedulerConfig(_Strict):
    """How the hardware is shared; times in seconds.

    slice_s: a long pass is cut into slices of about this time, at least one instrument call.
    longest_wait_s: a client's passes of one priority go first when none has run for so long.
    company_wait_s: how long a pass that does not fill a batch waits for others to share it.
    max_waiting, max_waiting_per_client: passes; max_waiting_rows: rows, of one system.
    weights: shares of clients by name, where not 1.
    call_timeout_s: a slice that takes so much longer than planned counts as hung: a fault.
    recovery_attempts: tries to recover a faulted system, the first at once, then after
    recovery_delay_s, twice that, and so on.
    """

    slice_s: float = Field(0.02, gt=0, le=10)
    longest_wait_s: float = Field(60.0, gt=0)
    company_wait_s: float = Field(0.0, ge=0, le=10)
    max_waiting: int = Field(10_000, ge=1)
    max_waiting_per_client: int = Field(1_000, ge=1)
    max_waiting_rows: int = Field(1_000_000, ge=1)
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    call_timeout_s: float = Field(120.0, gt=0)
    recovery_attempts: int = Field(5, ge=0)
    recovery_delay_s: float = Field(1.0, gt=0)


class InterlockConfig(_Strict):
    """The contact that must be OK while the bench is driven: a digital input, through VISA.

    input: the pin. ok: what it reads while the interlock is closed. interval_s: how old a reading
    may be; a change is noticed within this time. timeout_s: of one reading.
    """

    address: str
    input: str = Field("DIO0_P", pattern=r"^[A-Za-z0-9_]+$")
    ok: Literal[0, 1] = 1
    interval_s: float = Field(0.5, ge=0.05, le=10)
    timeout_s: float = Field(1.0, gt=0, le=2)


class BenchConfig(_Strict):
    """The whole bench; see `bench.toml` for a commented example.

    record: write every exchange with the instruments into this file, which must not exist yet.
    watchdog_s: a process that drives real instruments and hangs for longer loses the bench: its
    guard makes it safe.
    """

    name: str
    rigs: dict[str, RigConfig] = {}
    instruments: dict[str, InstrumentConfig]
    systems: dict[str, SystemConfig]
    scheduler: SchedulerConfig = SchedulerConfig()
    record: str | None = None
    interlock: InterlockConfig | None = None
    watchdog_s: float = Field(10.0, ge=1, le=600)

    @model_validator(mode="after")
    def _names_exist(self) -> "BenchConfig":
        for name, part in self.instruments.items():
            if part.rig not in (None, *self.rigs) and not part.address.startswith(_MOCK):
                raise ValueError(
                    f"instruments.{name}.rig: no rig '{part.rig}' "
                    f"(there are: {', '.join(self.rigs) or 'none'})"
                )
        for name, system in self.systems.items():
            for role, instrument in system.instruments.items():
                if instrument not in self.instruments:
                    raise ValueError(
                        f"systems.{name}.instruments.{role}: no instrument '{instrument}' "
                        f"(there are: {', '.join(self.instruments)})"
                    )
            rigs = {self.instruments[i].rig for i in system.instruments.values()} - {None}
            if len(rigs) > 1:
                raise ValueError(f"systems.{name}: its instruments stand on several rigs")
        return self

    def measurement_digest(self) -> str:
        """Return the sha256 of everything that may change what is measured.

        How long is waited does not, for an answer or in a simulation that honours times, nor does
        how the hardware is shared, nor who is told of row keys.
        """
        no_matter: dict[str, Any] = {
            "instruments": {"__all__": {"timeout_s", "rig"}},
            "rigs": {"__all__": {"honour_times", "admin"}},
            "scheduler": True,
            "record": True,
            "interlock": True,
            "watchdog_s": True,
        }
        return hashlib.sha256(self.model_dump_json(exclude=no_matter).encode()).hexdigest()


NO_BENCH = BenchConfig(name="none", instruments={}, systems={})
"""Of a service that has no instruments, beside others that have."""


def load_bench(path: Path | str) -> BenchConfig:
    """Read and check a bench file; raise ConfigError that names file, key and reason."""
    return read_bench(path)[0]


def read_bench(path: Path | str) -> tuple[BenchConfig, str]:
    """Do as `load_bench`, and return the file's text too."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error
    try:
        return BenchConfig.model_validate(data), text
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"{path}: {reasons}") from error

"""What a bench file says of its simulated rigs, and benches with other rigs."""

from collections.abc import Mapping

from pydantic import ValidationError

from lab.bench_config import BenchConfig, RigConfig
from lab.errors import ConfigError


def is_simulated(bench: BenchConfig) -> bool:
    """Say whether every instrument of the bench is simulated, in this process."""
    return all(part.is_in_memory and part.rig is not None for part in bench.instruments.values())


def gap(bench: BenchConfig, system: str) -> float | None:
    """Return the gap of the simulated rig behind a system, None on a real bench."""
    for name in bench.systems[system].instruments.values():
        rig = bench.instruments[name].rig
        if rig is not None and rig in bench.rigs:
            return bench.rigs[rig].gap
    return None


def with_rigs(bench: BenchConfig, **changes: float | None) -> BenchConfig:
    """Return the bench with fields of all its rigs changed, those that are not None.

    Raises ConfigError if a value is out of range, or the bench has no rigs or has them elsewhere.
    """
    changed = {field: value for field, value in changes.items() if value is not None}
    if not changed:
        return bench
    if not bench.rigs:
        raise ConfigError(f"{', '.join(changed)}: only a simulated bench has rigs to change")
    for name, rig in bench.rigs.items():
        if rig.admin is not None:
            raise ConfigError(
                f"{', '.join(changed)}: rig '{name}' is served at {rig.admin}: not here"
            )
    try:
        rigs = {
            name: RigConfig.model_validate({**rig.model_dump(), **changed})
            for name, rig in bench.rigs.items()
        }
    except ValidationError as error:
        reasons = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise ConfigError(reasons) from error
    return bench.model_copy(update={"rigs": rigs})


def on_sockets(bench: BenchConfig, admin: str, addresses: Mapping[str, str | None]) -> BenchConfig:
    """Return the bench as who connects to `pnnlab mock` writes it.

    admin: the URL of that process; addresses: the real address of each `mock://` one, None for an
    instrument that has no network wire and stays in memory, with its rig. Raises ConfigError where
    instruments of one rig would be here and there.
    """
    data = bench.model_dump(exclude_unset=True)
    there: dict[str, str] = {}
    for name, part in data["instruments"].items():
        real = addresses.get(part["address"])
        if real is not None:
            part["address"] = real
            there.setdefault(str(part["rig"]), name)
    for rig, instrument in there.items():
        data["rigs"][rig]["admin"] = admin
        for name, part in data["instruments"].items():
            if part.get("rig") == rig and part["address"] in addresses:
                raise ConfigError(
                    f"rigs.{rig}: '{instrument}' is served on a socket and '{name}' has no network "
                    "wire; they cannot share a plant"
                )
    interlock = data.get("interlock")
    if interlock is not None:
        interlock["address"] = addresses.get(interlock["address"]) or interlock["address"]
    return BenchConfig.model_validate(data)

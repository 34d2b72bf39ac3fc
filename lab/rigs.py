"""What a bench file says of its simulated rigs, and benches with other rigs."""

from pydantic import ValidationError

from lab.config import BenchConfig, RigConfig
from lab.errors import ConfigError


def is_simulated(bench: BenchConfig) -> bool:
    """Say whether every instrument of the bench is simulated."""
    return all(part.rig is not None for part in bench.instruments.values())


def gap(bench: BenchConfig, system: str) -> float | None:
    """Return the gap of the simulated rig behind a system, None on a real bench."""
    for name in bench.systems[system].instruments.values():
        rig = bench.instruments[name].rig
        if rig is not None and rig in bench.rigs:
            return bench.rigs[rig].gap
    return None


def with_rigs(bench: BenchConfig, **changes: float | None) -> BenchConfig:
    """Return the bench with fields of all its rigs changed, those that are not None.

    Raises ConfigError if a value is out of range or the bench has no rigs.
    """
    changed = {field: value for field, value in changes.items() if value is not None}
    if not changed:
        return bench
    if not bench.rigs:
        raise ConfigError(f"{', '.join(changed)}: only a simulated bench has rigs to change")
    try:
        rigs = {
            name: RigConfig.model_validate({**rig.model_dump(), **changed})
            for name, rig in bench.rigs.items()
        }
    except ValidationError as error:
        reasons = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise ConfigError(reasons) from error
    return bench.model_copy(update={"rigs": rigs})

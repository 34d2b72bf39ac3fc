"""A bench whose instruments are replaced by simulated ones, to rehearse what would be sent to them.

The drivers, their settings and limits stay; only addresses change, so that no connection to a real
instrument is ever opened.
"""

from lab.bench_config import BenchConfig, InstrumentConfig, RigConfig
from lab.errors import ConfigError

_MOCK = "mock://"

COUNTERPARTS: dict[str, tuple[str, str]] = {
    "WaveShaperA": ("optics", "shaper"),
    "SLMShaper": ("optics", "slm"),
    "YokogawaAQ6370": ("optics", "spectrometer"),
    "OceanSpectrometer": ("optics", "ocean"),
    "MccUsb1208HS": ("circuit", "daq"),
    "RedPitayaDAQ": ("circuit", "redpitaya"),
    "AudioPlate": ("plate", "audio"),
    "DaqPlate": ("plate", "daq"),
}
"""By driver: the plant of the simulated rig, and the instrument on it."""


def rehearsed(config: BenchConfig) -> BenchConfig:
    """Return the bench with a simulated counterpart for every real instrument.

    The instruments of a system stand on one rig. Identities are not expected, waits are not waited,
    nothing is recorded, and an interlock is not read. Raises ConfigError for a driver whose
    counterpart is not known.
    """
    rigs = {name: _in_memory(rig) for name, rig in config.rigs.items()}
    instruments = dict(config.instruments)
    groups = [list(system.instruments.values()) for system in config.systems.values()]
    groups += [[name] for name in config.instruments]  # those that belong to no system
    for group in groups:
        simulated = [rig for name in group if (rig := _rig(instruments[name])) is not None]
        rig = simulated[0] if simulated else f"rehearsal-{len(rigs)}"
        for name in group:
            if _rig(instruments[name]) is None:
                plant, instrument = _counterpart(name, instruments[name])
                rigs.setdefault(rig, RigConfig(plant=plant))
                instruments[name] = _moved(instruments[name], f"{_MOCK}{rig}/{instrument}")
    changes = {"rigs": rigs, "instruments": instruments, "record": None, "interlock": None}
    return config.model_copy(update=changes)


def _rig(part: InstrumentConfig) -> str | None:
    """Return the rig that the address names, whatever else is known of the instrument."""
    return part.rig if part.address.startswith(_MOCK) else None


def _in_memory(rig: RigConfig) -> RigConfig:
    """Return a rig with the same dials, in this process, that waits for nothing."""
    dials = rig.model_dump(exclude={"admin"})
    return RigConfig.model_validate({**dials, "honour_times": False})


def _counterpart(name: str, part: InstrumentConfig) -> tuple[str, str]:
    if part.driver not in COUNTERPARTS:
        raise ConfigError(
            f"instruments.{name}: a dry run needs a simulated counterpart, and none is known for "
            f"the driver '{part.driver}' (but for {', '.join(COUNTERPARTS)}); give it a mock:// "
            "address"
        )
    return COUNTERPARTS[part.driver]


def _moved(part: InstrumentConfig, address: str) -> InstrumentConfig:
    content = part.model_dump(exclude={"rig"})
    return InstrumentConfig.model_validate({**content, "address": address, "expect_idn": None})

"""A bench whose instruments are replaced by simulated ones, to rehearse what would be sent to them.

The drivers, their settings and limits stay; only addresses change, so that no connection to a real
instrument is ever opened.
"""

from lab.config import BenchConfig, InstrumentConfig, RigConfig
from lab.errors import ConfigError

COUNTERPARTS: dict[str, tuple[str, str]] = {
    "WaveShaperA": ("optics", "shaper"),
    "YokogawaAQ6370": ("optics", "spectrometer"),
    "SLMShaper": ("optics", "slm"),
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
    nothing is recorded. Raises ConfigError for a driver whose counterpart is not known.
    """
    here = {"honour_times": False, "admin": None}
    rigs = {name: rig.model_copy(update=here) for name, rig in config.rigs.items()}
    instruments = dict(config.instruments)
    groups = [list(system.instruments.values()) for system in config.systems.values()]
    groups += [[name] for name in config.instruments]  # those that belong to no system
    for group in groups:
        names = dict.fromkeys(rig for i in group if (rig := instruments[i].rig) is not None)
        rig = next(iter(names), f"rehearsal-{len(rigs)}")
        for name in group:
            if not instruments[name].is_in_memory:
                plant, _ = _counterpart(name, instruments[name])
                rigs.setdefault(rig, RigConfig(plant=plant))
                instruments[name] = _moved(name, instruments[name], rig)
    changes = {"rigs": rigs, "instruments": instruments, "record": None, "interlock": None}
    return config.model_copy(update=changes)


def _counterpart(name: str, part: InstrumentConfig) -> tuple[str, str]:
    if part.driver not in COUNTERPARTS:
        raise ConfigError(
            f"instruments.{name}: a dry run needs a simulated counterpart, and none is known for "
            f"the driver '{part.driver}' (but for {', '.join(COUNTERPARTS)}); give it a mock:// "
            "address"
        )
    return COUNTERPARTS[part.driver]


def _moved(name: str, part: InstrumentConfig, rig: str) -> InstrumentConfig:
    _, instrument = _counterpart(name, part)
    address = f"mock://{rig}/{instrument}"
    return part.model_copy(update={"address": address, "rig": rig, "expect_idn": None})

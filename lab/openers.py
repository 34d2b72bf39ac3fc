"""Open the drivers that a bench file names; imports no torch, so that a guard starts fast."""

from collections.abc import Callable, Mapping
from typing import Any

from drivers.circuits.mcc import MccUsb1208HS
from drivers.circuits.redpitaya import RedPitayaDAQ
from drivers.import_path import imported
from drivers.instrument import Instrument
from drivers.plates.audio import AudioPlate
from drivers.plates.daq_plate import DaqPlate, open_daq_plate
from drivers.shapers.slm import SLMShaper
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.ocean import OceanSpectrometer
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from drivers.transport import (
    REPLAY,
    Rig,
    open_audio,
    open_board,
    open_http,
    open_ocean,
    open_slm,
    open_visa,
)
from lab.bench_config import BenchConfig, InstrumentConfig

Opener = Callable[[str, InstrumentConfig, Mapping[str, Rig], bool], Any]
"""Opens one driver: its name, its part of the bench file, the rigs, whether to wait row_time_s."""


def _open_waveshaper(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> WaveShaperA:
    return WaveShaperA(
        open_http(config.address, rigs, timeout_s=config.timeout_s),
        name=name,
        expect_idn=config.expect_idn,
        settling_time_s=config.row_time_s if waits else 0.0,
        **_settings(config),
    )


def _open_yokogawa(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> YokogawaAQ6370:
    return YokogawaAQ6370(
        open_visa(config.address, rigs, timeout_s=config.timeout_s),
        name,
        expect_idn=config.expect_idn,
        **_settings(config),
    )


def _open_mcc(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> MccUsb1208HS:
    return MccUsb1208HS(
        open_board(config.address, rigs),
        name=name,
        expect_idn=config.expect_idn,
        timeout_s=config.timeout_s,
        **_settings(config),
    )


def _open_redpitaya(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> RedPitayaDAQ:
    return RedPitayaDAQ(
        open_visa(config.address, rigs, timeout_s=config.timeout_s),
        name,
        expect_idn=config.expect_idn,
        timeout_s=config.timeout_s,
        **_settings(config),
    )


def _open_audio_plate(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> AudioPlate:
    return AudioPlate(
        open_audio(config.address, rigs, timeout_s=config.timeout_s),
        name=name,
        expect_idn=config.expect_idn,
        **_settings(config),
    )


def _open_ocean(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> OceanSpectrometer:
    return OceanSpectrometer(
        open_ocean(config.address, rigs, timeout_s=config.timeout_s),
        name=name,
        expect_idn=config.expect_idn,
        **_settings(config),
    )


def _open_slm(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> SLMShaper:
    return SLMShaper(
        open_slm(config.address, rigs, timeout_s=config.timeout_s),
        name=name,
        expect_idn=config.expect_idn,
        settling_time_s=config.row_time_s if waits else 0.0,
        **_settings(config),
    )


def _open_daq_plate(
    name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
) -> DaqPlate:
    return open_daq_plate(
        open_board(config.address, rigs),
        name=name,
        expect_idn=config.expect_idn,
        timeout_s=config.timeout_s,
        **_settings(config),
    )


def _settings(config: InstrumentConfig) -> dict[str, Any]:
    return {**config.settings, **config.limits}


DRIVERS: dict[str, Opener] = {
    "WaveShaperA": _open_waveshaper,
    "YokogawaAQ6370": _open_yokogawa,
    "MccUsb1208HS": _open_mcc,
    "RedPitayaDAQ": _open_redpitaya,
    "AudioPlate": _open_audio_plate,
    "OceanSpectrometer": _open_ocean,
    "SLMShaper": _open_slm,
    "DaqPlate": _open_daq_plate,
}


def open_instrument(config: BenchConfig, name: str, rigs: Mapping[str, Rig]) -> Instrument:
    """Open one instrument of a bench by name.

    Raises ValueError for a driver or an address that does not exist, LimitError or TypeError for
    settings that the driver does not take, or the DriverError of one that cannot be reached.
    """
    part = config.instruments[name]
    opener = DRIVERS.get(part.driver) or imported_for("driver", part.driver, DRIVERS)
    waits = not part.address.startswith(REPLAY)
    if part.rig in config.rigs:
        waits = config.rigs[part.rig].honour_times
    instrument: Instrument = opener(name, part, rigs, waits)
    return instrument


def imported_for(what: str, path: str, known: Mapping[str, object]) -> Any:
    """Return what a bench file names by import path; raise ValueError that lists `known`."""
    if ":" not in path:
        raise ValueError(
            f"{what} = '{path}' is none of {', '.join(known)} and no import path (module:name)"
        )
    try:
        return imported(path)
    except ValueError as error:
        raise ValueError(f"{what} = {error}") from error

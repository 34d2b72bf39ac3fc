"""Open the drivers that a bench file names; imports no torch, so that a guard starts fast."""

from collections.abc import Callable, Mapping
from typing import Any

from drivers.circuits.mcc import MccUsb1208HS
from drivers.circuits.mcc_board import DaqBoard
from drivers.circuits.redpitaya import RedPitayaDAQ
from drivers.import_path import imported
from drivers.instrument import Instrument
from drivers.plates.audio import AudioPlate
from drivers.plates.daq_plate import open_daq_plate
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


def _opener(
    driver: Callable[..., Instrument],
    open_wire: Callable[..., Any],
    more: Callable[[InstrumentConfig, bool], dict[str, Any]] = lambda config, waits: {},
) -> Opener:
    """Return what opens a wire and the driver on it; more: its arguments beyond the usual ones."""

    def open_driver(
        name: str, config: InstrumentConfig, rigs: Mapping[str, Rig], waits: bool
    ) -> Instrument:
        return driver(
            open_wire(config.address, rigs, timeout_s=config.timeout_s),
            name=name,
            expect_idn=config.expect_idn,
            **more(config, waits),
            **{**config.settings, **config.limits},
        )

    return open_driver


def _board(address: str, rigs: Mapping[str, Rig], *, timeout_s: float) -> DaqBoard:
    """Open a board, whose driver does the waiting."""
    return open_board(address, rigs)


def _patience(config: InstrumentConfig, waits: bool) -> dict[str, Any]:
    return {"timeout_s": config.timeout_s}


def _settling(config: InstrumentConfig, waits: bool) -> dict[str, Any]:
    return {"settling_time_s": config.row_time_s if waits else 0.0}


DRIVERS: dict[str, Opener] = {
    "WaveShaperA": _opener(WaveShaperA, open_http, _settling),
    "YokogawaAQ6370": _opener(YokogawaAQ6370, open_visa),
    "MccUsb1208HS": _opener(MccUsb1208HS, _board, _patience),
    "RedPitayaDAQ": _opener(RedPitayaDAQ, open_visa, _patience),
    "AudioPlate": _opener(AudioPlate, open_audio),
    "OceanSpectrometer": _opener(OceanSpectrometer, open_ocean),
    "SLMShaper": _opener(SLMShaper, open_slm, _settling),
    "DaqPlate": _opener(open_daq_plate, _board, _patience),
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

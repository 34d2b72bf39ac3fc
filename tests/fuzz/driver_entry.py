"""Rows for the drivers themselves, in all the guises that arrays come in."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bad_drives import good_series, good_values, in_guise, no_array, spoil
from drivers.circuits.mcc import MccUsb1208HS
from drivers.circuits.redpitaya import RedPitayaDAQ
from drivers.mock.firmware.audio import SimulatedAudio
from drivers.mock.firmware.bounds import Bounds
from drivers.mock.firmware.mcc import MccFirmware
from drivers.mock.firmware.redpitaya import RedPitayaFirmware
from drivers.mock.firmware.slm import SimulatedDisplay, SLMFirmware
from drivers.mock.firmware.waveshaper import WaveShaperFirmware
from drivers.mock.http import FirmwareClient
from drivers.mock.visa import FirmwareAdapter
from drivers.plates.audio import AudioPlate
from drivers.shapers.slm import SLMShaper
from drivers.shapers.waveshaper import WaveShaperA
from limited_benches import (
    FLOOR_DB,
    OF_ROWS,
    RMS,
    TRANSMISSION,
    series_verdicts,
)
from tally import Fuzz

DRIVEN = 150  # samples of a row, where the duty is limited


def drivers_directly(fuzz: Fuzz) -> None:
    """Give the drivers arrays in all guises; the last part of the rows is for the shapers."""
    daq, audio = MccFirmware(_Silent()), SimulatedAudio(_Silent().respond)
    fuzz.far.add(daq, bounds=Bounds(-8.0, 8.0, slew=6.0))
    fuzz.far.add(audio, bounds=Bounds(-0.6, 0.6, rms=RMS, slew=0.9, driven=DRIVEN))
    limits = {**OF_ROWS["plate"]["drive"], "duty": DRIVEN / 4800}
    with (
        MccUsb1208HS(daq.connect(), buffer_samples=20_000, **OF_ROWS["circuit"]) as circuit,
        AudioPlate(audio, rows_per_shot=40, drive=limits) as plate,
    ):
        circuit.start()
        plate.start()
        while fuzz.goes_on(0.45):
            _series(fuzz, "circuit", circuit.acquire, 208, np.inf)
        while fuzz.goes_on(0.85):
            _series(fuzz, "plate", plate.play_and_record, 196, DRIVEN)
    pitaya = RedPitayaFirmware(_Silent())
    fuzz.far.add(pitaya, bounds=Bounds(-8.0, 8.0, slew=6.0))
    adapter = FirmwareAdapter(pitaya, "\r\n")
    with RedPitayaDAQ(adapter, amplifier_gain=10.0, **OF_ROWS["circuit"]) as circuit:
        circuit.start()
        while fuzz.goes_on(0.9):
            _series(fuzz, "circuit", circuit.acquire, 208, np.inf)
    firmware = WaveShaperFirmware(lambda *_: None)
    bounds = {"attenuation_db": Bounds(FLOOR_DB, 60.0), "phase_rad": Bounds(-1.0, 3.1416)}
    fuzz.far.add(firmware, **bounds, transmission=TRANSMISSION)
    shaped = {**OF_ROWS["optics"], "phase": {"low": -1.00006, "high": 3.14166}}
    client = FirmwareClient(firmware, timeout_s=1.0)
    with WaveShaperA(client, lines=200, settling_time_s=0, **shaped) as shaper:
        shaper.start()
        while fuzz.goes_on(0.96):
            _profile(fuzz, shaper, limits_light=True)
    display = SLMFirmware(lambda *_: None)
    fuzz.far.add(display, attenuation_db=Bounds(FLOOR_DB, 60.0))
    narrow = {"attenuation": (FLOOR_DB, 60.0), "phase": (-1.0, 3.1416)}
    with SLMShaper(SimulatedDisplay(display), lines=200, settling_time_s=0, **narrow) as shaper:
        shaper.start()
        while fuzz.goes_on():
            _profile(fuzz, shaper, limits_light=False)


class _Silent:
    """A plant without physics."""

    def respond(self, drive: Any) -> Any:
        return np.zeros_like(drive)

    def forget(self) -> None:
        pass


def _series(fuzz: Fuzz, kind: str, play: Callable[[Any], Any], samples: int, driven: float) -> None:
    rng, peak = fuzz.rng, 8.0 if kind == "circuit" else 0.6
    rows = int(rng.integers(1, 41))
    drive = good_series(rng, rows, samples, peak)
    if driven < samples:
        drive[:, int(driven) :] = 0
    case = rng.random()
    if case < 0.05:
        given = no_array(rng, drive)
        fuzz.ask(np.ones(rows, dtype=np.int8), lambda: play(given))
        return
    if case < 0.45:
        drive = spoil(rng, drive, -peak, peak)
    elif case < 0.75:  # within the range, but too loud, too steep or too long
        bad = rng.random(rows) < rng.choice([0.1, 1.0, 1.0])
        drive[bad] = rng.uniform(-peak, peak, (int(bad.sum()), samples))
    given = in_guise(rng, drive)
    seen = np.asarray(given).astype(np.float64)
    verdict = series_verdicts(kind, _as_float32(seen, peak, kind), driven=driven)
    fuzz.ask(verdict, lambda: play(given))


def _as_float32(drive: Any, peak: float, kind: str) -> Any:
    """Return what a sound interface would be sent of values in the range; else the values."""
    if kind == "circuit":
        return drive
    with np.errstate(over="ignore"):
        rounded = drive.astype(np.float32).astype(np.float64)
    return np.where(np.abs(drive) <= peak, np.clip(rounded, -peak, peak), drive)


def _profile(fuzz: Fuzz, shaper: WaveShaperA | SLMShaper, *, limits_light: bool) -> None:
    rng, lines = fuzz.rng, shaper.attenuation.shape[0]
    low, high = 6.0, 60.0
    attenuation = good_values(rng, (1, lines), low, high)
    attenuation[0, rng.integers(lines)] = FLOOR_DB
    phase = good_values(rng, (1, lines), -1.0, 3.1416)
    case, verdict = rng.random(), 0
    if case < 0.25:
        attenuation = spoil(rng, attenuation, FLOOR_DB, 60.0)
    elif case < 0.4:
        phase = spoil(rng, phase, -1.0, 3.1416)
    elif case < 0.6 and limits_light:  # every line may, all together may not
        attenuation, verdict = rng.uniform(FLOOR_DB, 5.5, (1, lines)), 1
    given: list[Any] = [in_guise(rng, attenuation[0]), in_guise(rng, phase[0])]
    if case > 0.97:
        given[int(rng.integers(2))], verdict = no_array(rng, attenuation), 1
    else:
        sent = [np.asarray(g).astype(np.float64) for g in given]
        inside = (sent[0] >= FLOOR_DB).all() and (sent[0] <= 60.0).all()
        inside = inside and (sent[1] >= -1.0).all() and (sent[1] <= 3.1416).all()
        verdict = verdict if inside else 1
    fuzz.ask(np.array([verdict], dtype=np.int8), lambda: shaper.load(*given))

"""The ways on which rows reach a driver; each function asks for rows until its share is done."""

import asyncio
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import torch
from torch import Tensor, nn

from bad_drives import good_series, good_values, in_guise, no_array, spoil
from drivers.audio import AudioPlate
from drivers.errors import LimitError
from drivers.mcc import MccUsb1208HS
from drivers.mock.audio import SimulatedAudio
from drivers.mock.bounds import Bounds
from drivers.mock.http import FirmwareClient
from drivers.mock.mcc import MccFirmware
from drivers.mock.redpitaya import RedPitayaFirmware
from drivers.mock.visa import FirmwareAdapter
from drivers.mock.waveshaper import WaveShaperFirmware
from drivers.redpitaya import RedPitayaDAQ
from drivers.waveshaper import WaveShaperA
from lab.audit import audit_gradient
from lab.bench import Bench, open_bench
from lab.measure import DeviceMeasure
from lab.pat import PhysicalLayer
from lab.rules.base import Sums
from lab.rules.pepg import PolicyGradients
from lab.rules.spsa import SimultaneousPerturbation
from lab.scheduling.rhythm import Rhythm
from lab.scheduling.system_worker import idle_shot
from lab.sentinels import Sentinels, SentinelSettings, reference_rows
from lab.twins import measure_random
from limited_benches import (
    FLOOR_DB,
    OF_ROWS,
    RANGES,
    RMS,
    TRANSMISSION,
    limited_bench,
    series_verdicts,
    verdicts,
)
from server.app import create_app
from tally import Fuzz

SYSTEMS = ("circuit", "plate", "optics")
SHARES = {"circuit": 0.45, "plate": 0.95, "optics": 1.0}  # of an entry, up to and with this system
DRIVEN = 150  # samples of a row, where the duty is limited


# --- the drivers themselves -------------------------------------------------------------------


def drivers_directly(fuzz: Fuzz) -> None:
    """Give the drivers arrays in all guises; the last part of the rows is for the shaper."""
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
    fuzz.far.add(pitaya, bounds=Bounds(-8.0, 8.0))
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
        while fuzz.goes_on():
            _profile(fuzz, shaper)


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


def _profile(fuzz: Fuzz, shaper: WaveShaperA) -> None:
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
    elif case < 0.6:  # every line may, all together may not
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


# --- systems: x and theta ---------------------------------------------------------------------


def _drives(fuzz: Fuzz, system: str, rows: int, size: int) -> tuple[Any, Any]:
    """Return x and theta, physical units: quiet, loud, or with values out of their ranges."""
    rng, (low, high) = fuzz.rng, RANGES[system]
    case = rng.random()
    if case < 0.4:  # within the ranges, but more than the row limits allow, in some rows or all
        level = rng.choice([1.0, 1.0, 0.8])
        x, theta = (good_values(rng, (rows, size), level * low, level * high) for _ in "xt")
        return (np.abs(x), np.abs(theta)) if system == "optics" else (x, theta)
    if system == "optics":
        x, theta = (good_values(rng, (rows, size), -0.3, 0.3) for _ in "xt")
    else:
        x, theta = (good_series(rng, rows, size, high) for _ in "xt")
    if case < 0.75:
        which = rng.integers(3)
        x = spoil(rng, x, low, high) if which != 1 else x
        theta = spoil(rng, theta, low, high) if which != 0 else theta
    return x, theta


def rest(fuzz: Fuzz) -> None:
    """Post passes to the service, as JSON and as NumPy archives."""
    for system in SYSTEMS:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(_post_passes(fuzz, system, folder))


async def _post_passes(fuzz: Fuzz, system: str, folder: str) -> None:
    app = create_app(limited_bench(system, rows=True), data_dir=folder)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    url = f"http://lab/api/v1/systems/{system}/passes"
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as http:
        size = (await http.get(url.removesuffix("/passes"))).json()["x"]["shape"][0]
        most = 8 if system == "optics" else 60
        while fuzz.goes_on(SHARES[system]):
            rows = int(fuzz.rng.integers(1, most + 1))
            x, theta = _drives(fuzz, system, rows, size)
            verdict = verdicts(system, x, theta, rows=True)
            body, kind, broken = _body(fuzz, x, theta)
            if broken:
                verdict = np.ones_like(verdict)
            with suppress(LimitError), fuzz.asked(verdict):
                answer = await http.post(url, content=body, headers={"content-type": kind})
                if answer.status_code not in (200, 422):
                    fuzz.tally.wrong.append(f"{system}: {answer.status_code} {answer.text[:200]}")
                if answer.status_code != 200:
                    raise LimitError("service", "pass", answer.text)


def _body(fuzz: Fuzz, x: Any, theta: Any) -> tuple[bytes, str, bool]:
    """Return a body, its type, and whether it is to be refused whatever the values are."""
    rng = fuzz.rng
    broken = rng.random() < 0.03
    if rng.random() < 0.3:
        content: dict[str, Any] = {"x": x.tolist(), "theta": theta.tolist()}
        if broken:
            wrong = rng.choice(["ragged", "short", "word", "none"])
            row = content["theta"][0]
            content["theta"][0] = {
                "ragged": row[:-1],
                "short": [],
                "word": ["loud", *row[1:]],
                "none": [None, *row[1:]],
            }[str(wrong)]
        return json.dumps(content).encode(), "application/json", broken
    file = io.BytesIO()
    kinds = [lambda v: v, lambda v: v.astype(">f8"), np.asfortranarray]
    given = no_array(rng, theta) if broken else kinds[rng.integers(3)](theta)
    if isinstance(given, list | np.ma.MaskedArray):  # no file can hold these
        given = theta[:, :-1]
    np.savez(file, x=x, theta=given)
    return file.getvalue(), "application/x-npz", broken


class AskedMeasure:
    """measure(x, theta) of one system, every call of it counted and judged."""

    def __init__(self, fuzz: Fuzz, bench: Bench, system: str, *, rows: bool) -> None:
        self.description = bench.system(system).description
        self._fuzz, self._system, self._rows = fuzz, system, rows
        self._device: DeviceMeasure = bench.measure(system)

    def __call__(self, x: Tensor, theta: Tensor) -> Tensor:
        d = self.description
        physical = (
            spec.to_physical(values.detach().double().numpy())
            for spec, values in ((d.x, x), (d.theta, theta))
        )
        with self._fuzz.asked(verdicts(self._system, *physical, rows=self._rows)):
            return self._device(x, theta)


class Product(nn.Module):
    """A twin for systems with as many outputs as inputs."""

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return x * theta


def _on_benches(
    fuzz: Fuzz, work: Callable[[Fuzz, AskedMeasure, Bench, str], None], plain: float
) -> None:
    """Do `work` again and again on every system; plain: share without limits of rows."""
    begin = 0.0
    for system in SYSTEMS:
        share = SHARES[system] - begin
        for rows, end in ((False, begin + plain * share), (True, begin + share)):
            fuzz.far.rows = rows
            with open_bench(limited_bench(system, rows=rows)) as bench:
                measure = AskedMeasure(fuzz, bench, system, rows=rows)
                while fuzz.goes_on(end):
                    with suppress(LimitError):
                        work(fuzz, measure, bench, system)
        begin = SHARES[system]
    fuzz.far.rows = True


def trainer(fuzz: Fuzz) -> None:
    """Train physical layers with huge parameters, steps and gradients, and NaN among them."""
    _on_benches(fuzz, _train, plain=0.25)


def _layers(fuzz: Fuzz, measure: AskedMeasure, count: int) -> nn.Sequential:
    rng, size = fuzz.rng, measure.description.theta.shape[0]
    middle = measure.description.theta.to_normalised(np.zeros(()))
    width = 10.0 ** rng.uniform(-3, 3) if rng.random() < 0.3 else rng.uniform(0.0, 0.2)
    layers = [
        PhysicalLayer(
            torch.from_numpy(middle + width * rng.standard_normal(size)), measure, Product()
        )
        for _ in range(count)
    ]
    for layer in layers:
        layer.clamped = bool(rng.random() < 0.4)
    return nn.Sequential(*layers)


def _features(fuzz: Fuzz, measure: AskedMeasure, rows: int) -> Tensor:
    rng, spec = fuzz.rng, measure.description.x
    middle = spec.to_normalised(np.zeros(()))
    width = rng.choice([0.01, 0.1, 0.5, 0.5, 1e6, 1e6])
    values = middle + width * rng.standard_normal((rows, spec.shape[0]))
    if rng.random() < 0.05:
        values[rng.integers(rows), 0] = np.nan
    return torch.from_numpy(values)


def _train(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rng = fuzz.rng
    network = _layers(fuzz, measure, int(rng.integers(1, 3)))
    features = _features(fuzz, measure, int(rng.integers(1, 33)))
    optimiser = torch.optim.SGD(network.parameters(), lr=10.0 ** rng.uniform(-3, 6))
    for _ in range(4):
        optimiser.zero_grad()
        network(features).square().sum().backward()
        if rng.random() < 0.05:
            next(iter(network.parameters())).grad[0] = torch.nan
        optimiser.step()


def spsa(fuzz: Fuzz) -> None:
    """Let SPSA and PEPG perturb parameters."""
    _on_benches(fuzz, _perturb, plain=0.25)


def _perturb(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rng = fuzz.rng
    network, features = _layers(fuzz, measure, 1), _features(fuzz, measure, 8)
    batch, seed = torch.arange(8), int(rng.integers(2**31))

    def loss(network: Any, batch: Tensor) -> tuple[Tensor, Sums]:
        value = network(features[batch]).square().mean()
        return value, Sums(float(value), 0.0, 0.0)

    both: list[Any] = [
        SimultaneousPerturbation(network, loss, seed=seed, step=10.0 ** rng.uniform(-3, 1)),  # type: ignore[arg-type]
        PolicyGradients(network, loss, seed=seed),  # type: ignore[arg-type]
    ]
    both[rng.integers(2)].step(batch)


def twin_fit(fuzz: Fuzz) -> None:
    """Measure the random drives that twins are fitted to."""
    _on_benches(fuzz, _fit_rows, plain=0.3)


def _fit_rows(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rows = int(fuzz.rng.integers(1, 4 if fuzz.rng.random() < 0.8 else 40))
    measure_random(measure, None, rows, seed=int(fuzz.rng.integers(2**31)))  # type: ignore[arg-type]


def calibration(fuzz: Fuzz) -> None:
    """Arm sentinels and look, audit gradients, and measure idle shots."""
    _on_benches(fuzz, _watch, plain=0.3)


def _audit(fuzz: Fuzz, measure: AskedMeasure) -> None:
    """Probe a network's gradient with steps of any length."""
    network, features = _layers(fuzz, measure, 1), _features(fuzz, measure, 2)
    parameters = list(network.parameters())
    audit_gradient(
        lambda: network(features).square().mean(1),
        parameters,
        [torch.randn_like(p) for p in parameters],
        physical=parameters,
        generator=torch.Generator().manual_seed(0),
        probes=2,
        step=10.0 ** fuzz.rng.uniform(-3, 2),
    )


def _watch(fuzz: Fuzz, measure: AskedMeasure, bench: Bench, system: str) -> None:
    rng = fuzz.rng
    if rng.random() < 0.4:
        with suppress(ValueError):  # a loss that is huge everywhere has no gradient to compare
            _audit(fuzz, measure)
        return
    drives = reference_rows(
        measure.description, int(rng.integers(1, 3)), seed=int(rng.integers(2**31))
    )
    if rng.random() < 0.2:
        d = measure.description
        x, theta = (
            s.to_physical(v[:1].double().numpy())
            for s, v in zip((d.x, d.theta), drives, strict=True)
        )
        verdict = verdicts(system, x, theta, rows=fuzz.far.rows)
        if verdict[0] == 0:  # idle shots repeat a row that has been measured
            with fuzz.asked(verdict):
                rhythm = Rhythm(1.0, lambda: 0.0, lambda _: None)
                idle_shot(bench.system(system), (x, theta), rhythm)
        return
    settings = SentinelSettings(looks=int(rng.integers(2, 5)))
    sentinels = Sentinels(measure, Product(), drives, clock=lambda: 0.0, settings=settings)
    sentinels.arm()
    sentinels.look()

"""Yokogawa AQ6370 series optical spectrum analyser over Ethernet (SCPI, TCP port 10001).

A sweep, an offset adjustment, and how they end; PyMeasure's class, mended, is `yokogawa_mended`'s.
No wire call waits longer than the adapter's timeout: a sweep and a zero are started and polled. One
thread at a time has the instrument for a whole measurement; `abort` alone may come from another.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pymeasure.adapters import Adapter

from drivers.abort import Abort
from drivers.errors import Aborted, InstrumentTimeout, refuse
from drivers.instrument import check_identity
from drivers.spec import Array, ArraySpec
from drivers.spectrometers.yokogawa_mended import MendedAQ6370
from drivers.wires.scpi_settings import refuse_queued_errors, verify

POINTS = (101, 50_001)
WAVELENGTH_NM = (600.0, 1700.0)
RESOLUTIONS_NM = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
SENSITIVITIES = ("NHLD", "NAUT", "NORM", "MID", "HIGH1", "HIGH2", "HIGH3")
_POLL_INTERVAL_S = 0.005
_TRACE = ":TRACe:Y? TRA"
_STOP = ":ABORt"


class YokogawaAQ6370(MendedAQ6370):
    """A spectrum analyser that sweeps once per `measure` and returns trace A in W.

    `power` declares what `measure` returns: (points,), W. A value at or above its upper limit
    (`full_scale_w` in single precision) means a saturated detector.
    """

    power: ArraySpec

    def __init__(
        self,
        adapter: Adapter | str | int,
        name: str = "Yokogawa AQ6370",
        *,
        start_nm: float = WAVELENGTH_NM[0],
        stop_nm: float = WAVELENGTH_NM[1],
        points: int = 1001,
        full_scale_w: float = 0.1,
        resolution_nm: float = 0.05,
        sensitivity: str = "NORM",
        sweep_timeout_s: float = 30.0,
        zero_timeout_s: float = 90.0,
        zero_every_s: float = 600.0,
        expect_idn: str | None = None,
        user: str | None = "anonymous",
        password: str = "",
        **kwargs: Any,
    ) -> None:
        """Take the connection and the settings that `start` will apply; no I/O here.

        start_nm < stop_nm within 600-1700 nm; points 101-50001; full_scale_w the largest power the
        detector can tell apart, W; resolution_nm one of RESOLUTIONS_NM; sensitivity one of
        SENSITIVITIES; sweep_timeout_s the longest wait for one sweep; zero_timeout_s the longest
        wait for one offset adjustment, which takes about 30 s; zero_every_s how old the last one
        may become before `adjust_if_due` makes another, above 0 (infinite: never);
        expect_idn a regular expression that the answer to `*IDN?` must contain; user and password
        of the Ethernet login (user None: the interface has no login). Other keyword arguments
        reach the adapter when `adapter` is an address. Raises LimitError; TypeError for other
        keyword arguments that nobody would hear of.
        """
        super().__init__(adapter, name, user=user, password=password, **kwargs)
        _check_axis(name, start_nm, stop_nm, points)
        _check_choice(name, "resolution_nm", resolution_nm, RESOLUTIONS_NM)
        _check_choice(name, "sensitivity", sensitivity, SENSITIVITIES)
        # As the trace's REAL,32 rounds it, so that a saturated value compares equal.
        full_scale_w = float(np.float32(full_scale_w))
        self.power = ArraySpec("power", "W", (points,), 0.0, full_scale_w)
        self.sweep_timeout_s = sweep_timeout_s
        self.zero_timeout_s = zero_timeout_s
        if not zero_every_s > 0:
            refuse(name, "zero_every_s", f"{zero_every_s:g} is not above 0 s")
        self.zero_every_s = zero_every_s
        self._zeroed_s = time.monotonic()
        self._expect_idn = expect_idn
        self._abort = Abort(name)
        self._wavelengths_m = np.linspace(start_nm, stop_nm, points) * 1e-9
        self._settings: Mapping[str, Any] = {
            "transfer_format": "REAL,32",
            "level_scale": "LINEAR",
            "automatic_zero": False,
            "wavelength_start": start_nm * 1e-9,
            "wavelength_stop": stop_nm * 1e-9,
            "resolution_bandwidth": float(f"{resolution_nm:g}e-9"),
            "sensitivity": sensitivity,
            "automatic_sample_number": False,
            "sample_number": points,
            "active_trace": "TRA",
            "sweep_mode": "SINGLE",
        }

    # --- Spectrometer -----------------------------------------------------------------------

    @property
    def wavelengths_m(self) -> Array:
        """Get the wavelength axis of `measure`, (points,), m."""
        return self._wavelengths_m.copy()

    def start(self) -> None:
        """Reconnect if need be, check who answers, stop what runs, apply and verify settings.

        Raises IdentityError, InstrumentRefused if a setting was not taken, or what the wire does.
        """
        self._abort.clear()
        with self._link.transaction():
            self._link.recover()
            identity = self.identify()
            check_identity(self.name, identity, self._expect_idn)
            self._stop_cleanly()
            for setting, value in self._settings.items():
                self._abort.check("settings")
                setattr(self, setting, value)
            self.TRA.mode = "WRITE"
            self._refuse_queued_errors("settings")
            for setting, value in self._settings.items():
                self._abort.check("settings")
                self._verify(setting, value)

    def measure(self) -> Array:
        """Sweep once and return the power (points,), W, at `wavelengths_m`.

        Raises InstrumentTimeout after `sweep_timeout_s`, InstrumentRefused, Aborted, ProtocolError
        for a trace of another length or with values that are not finite.
        """
        with self._link.transaction():
            self._abort.check("sweep")
            self.initiate_sweep()
            self._wait_for("sweep", self._sweep_is_done, self.sweep_timeout_s)
            self._refuse_queued_errors("sweep")
            power = self.get_binary_data()
            if not np.isfinite(power).all():
                raise self._link.distrust(_TRACE, "the trace holds values that are not finite")
        return power

    def zero(self) -> None:
        """Adjust the offset of the detector once; takes about 30 s, so not between rows.

        Raises InstrumentTimeout after `zero_timeout_s`, InstrumentRefused, Aborted. Commands after
        the list in the manual IM AQ6370C-17EN and public clients.
        """
        with self._link.transaction():
            self._abort.check("zero")
            self.write(":CALibration:ZERO ONCE")
            self._wait_for("zero", self._zero_is_done, self.zero_timeout_s)
            self._refuse_queued_errors("zero")
            self._verify("automatic_zero", False)
            self._zeroed_s = time.monotonic()

    def adjust_if_due(self) -> None:
        """Adjust the offset if the last time, or the opening, is `zero_every_s` ago.

        For whoever knows that no pass runs; raises what `zero` does.
        """
        if time.monotonic() - self._zeroed_s >= self.zero_every_s:
            self.zero()

    def abort(self) -> None:
        """Let a running sweep or zero end soon with Aborted; from any thread, sends nothing itself.

        The thread that waits for the instrument stops it. `start` makes it ready again.
        """
        self._abort.request()

    def get_binary_data(self, bitness: int = 32) -> Array:
        """Return trace A as it is, (points,); `transfer_format` must be REAL,<bitness>."""
        size = bitness // 8
        data = self._link.ask_block(_TRACE, size * self.power.shape[0])
        return np.frombuffer(data, dtype=f"<f{size}").astype(np.float64)

    def shutdown(self) -> None:
        """Stop any sweep or zero; idempotent. The analyser itself emits nothing.

        Waits for another thread's measurement: `abort` first ends that soon.
        """
        with self._link.transaction():
            if not self._link.closed:
                self._link.recover()
                self._stop_cleanly()
                self._refuse_queued_errors("abort")
        super().shutdown()

    def _stop_cleanly(self) -> None:
        """Forget old errors and stop what runs."""
        self.write("*CLS")
        self.write(_STOP)

    def _wait_for(self, asked: str, done: Callable[[], bool], limit_s: float) -> None:
        """Poll, so that no single call blocks for the length of what runs; stop it on failure."""
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() >= deadline:
                self.write(_STOP)
                message = f"{asked}: not done after {limit_s:g} s; aborted"
                raise InstrumentTimeout(self.name, message)
            try:
                self._abort.wait(asked, _POLL_INTERVAL_S)
            except Aborted:
                self.write(_STOP)
                raise

    def _sweep_is_done(self) -> bool:
        return bool(self._ask_number(":STATus:OPERation:CONDition?") & 1)

    def _zero_is_done(self) -> bool:
        return self._ask_number(":CALibration:ZERO:STATus?") == 0

    def _ask_number(self, query: str) -> int:
        answer = self._link.ask(query)
        if not answer.isdecimal():
            raise self._link.distrust(query, f"answered {answer!r}")
        return int(answer)

    def _refuse_queued_errors(self, asked: str) -> None:
        refuse_queued_errors(self._link, asked, ":SYSTem:ERRor?")

    def _verify(self, setting: str, value: Any) -> None:
        verify(self._link, setting, value, lambda: getattr(self, setting), share=1e-6)


def _check_axis(name: str, start_nm: float, stop_nm: float, points: int) -> None:
    low, high = WAVELENGTH_NM
    if not low <= start_nm < stop_nm <= high:
        message = f"{start_nm:g} to {stop_nm:g} nm is not a rising range in [{low:g}, {high:g}] nm"
        refuse(name, "wavelength", message)
    if not POINTS[0] <= points <= POINTS[1]:
        message = f"{points} is outside [{POINTS[0]}, {POINTS[1]}] points"
        refuse(name, "points", message)


def _check_choice(name: str, quantity: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        refuse(name, quantity, f"{value!r} is not one of {choices}")

"""Ocean spectrometers (HDX and FX over TCP, Flame and other models on USB) through seabreeze.

A spectrum is one integration of all pixels. Counts become power by

    power = watts_per_count * (counts - dark), interpolated linearly to the wanted wavelengths

where the dark frame is the mean of a few spectra that `start` takes without light: block the light
first (the optics system starts its shaper, blocked, before the spectrometer). Nothing is smoothed
or corrected for nonlinearity; noise may make a dark point slightly negative. A point between two
pixels of which one is at full scale reads exactly the upper limit of `power`: saturated.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from drivers.abort import Abort
from drivers.errors import (
    ConnectionLost,
    InstrumentRefused,
    InstrumentTimeout,
    ProtocolError,
    refuse,
)
from drivers.instrument import Closing, check_identity
from drivers.spec import Array, ArraySpec
from drivers.spectrometers.ocean_link import BadAnswer, OceanLink, Refusal

T = TypeVar("T")

INTEGRATION_MS = (0.01, 10_000.0)  # of any model; each has narrower limits of its own
MOST_POINTS = 50_001
MOST_DARK_FRAMES = 1000


class OceanSpectrometer(Closing):
    """A spectrometer that integrates once per `measure` and returns power in W.

    `power` declares what `measure` returns: (points,), W; its upper limit means saturated.
    """

    power: ArraySpec

    def __init__(
        self,
        link: OceanLink,
        *,
        name: str = "spectrometer",
        watts_per_count: float,
        start_nm: float = 773.365,
        stop_nm: float = 776.635,
        points: int = 101,
        integration_time_ms: float = 10.0,
        dark_frames: int = 8,
        dark_share: float = 0.1,
        full_scale_counts: int = 65_535,
        model: str = "HDX",
        expect_idn: str | None = None,
    ) -> None:
        """Take the connection (closed by `close`) and the settings that `start` applies; no I/O.

        watts_per_count: calibration at this integration time, W; the axis is `points` wavelengths
        from start_nm to stop_nm; integration_time_ms within the model's limits; dark_frames 1 to
        1000; dark_share: share of full scale that no pixel's dark frame may exceed;
        full_scale_counts as the model has it; model: HDX or FX, over TCP only; expect_idn a
        regular expression that the identity must contain. Raises LimitError.
        """
        self.name = name
        self._link = link
        self._model = model
        self._expect_idn = expect_idn
        self._watts_per_count = watts_per_count
        self._full_scale = full_scale_counts
        self._dark_frames = dark_frames
        self._dark_share = dark_share
        _check_axis(name, start_nm, stop_nm, points)
        _check_range(name, "integration_time", integration_time_ms, INTEGRATION_MS, "ms")
        _check_range(name, "dark_frames", dark_frames, (1, MOST_DARK_FRAMES), "frames")
        _check_range(name, "dark_share", dark_share, (0.0, 1.0), "of full scale")
        _check_range(name, "full_scale_counts", full_scale_counts, (1, 2**32), "counts")
        _check_range(name, "watts_per_count", watts_per_count, (1e-30, 1.0), "W")
        self._time_us = round(integration_time_ms * 1000)
        self._wavelengths_nm = np.linspace(start_nm, stop_nm, points)
        self.power = ArraySpec("power", "W", (points,), 0.0, full_scale_counts * watts_per_count)
        self._pixels = 0
        self._lower: NDArray[np.intp]
        self._weight: Array  # of the pixel above; the one below has the rest
        self._dark: Array | None = None
        self._abort = Abort(name)
        self._opened = self._lost = self._closed = False

    @property
    def wavelengths_m(self) -> Array:
        """Get the wavelength axis of `measure`, (points,), m."""
        return self._wavelengths_nm * 1e-9

    # --- Instrument -------------------------------------------------------------------------

    def identify(self) -> str:
        """Return maker, model and serial number."""
        return self._call("identity", self._link.identity)

    def start(self) -> None:
        """Reconnect if need be, check who answers, apply the settings, take the dark frame.

        Raises IdentityError, LimitError for settings that this instrument cannot have,
        InstrumentRefused for a setting that it refuses or a dark frame that is not dark, or what
        the wire does.
        """
        self._abort.clear()
        self._lost = False
        self._dark = None
        identity = self.identify()
        check_identity(self.name, identity, self._expect_idn)
        self._call("trigger mode", self._link.free_run)
        self._apply_integration_time()
        self._place_axis()
        self._take()  # the first after a change may be of the old integration time
        self._dark = self._take_dark()

    def shutdown(self) -> None:
        """Switch a lamp off where there may be one; idempotent. The spectrometer emits nothing.

        For a lamp it connects if need be: whoever came before may have left it on.
        """
        if self._link.has_lamp and not self._closed:
            lost, self._lost = self._lost, False
            try:
                self._call("lamp off", self._link.lamp_off)
            finally:
                self._lost = self._lost or lost  # only `start` allows another spectrum

    def abort(self) -> None:
        """Let a running integration end soon with Aborted; thread-safe, cleared by `start`."""
        self._abort.request()

    def close(self) -> None:
        """Shut down and release the connection; idempotent."""
        try:
            self.shutdown()
        finally:
            self._closed = True
            self._link.close()

    # --- Spectrometer -----------------------------------------------------------------------

    def measure(self) -> Array:
        """Integrate once and return the power (points,), W, at `wavelengths_m`.

        Raises InstrumentTimeout, ConnectionLost, InstrumentRefused, ProtocolError for counts that
        the detector cannot have, or Aborted. After most of these only `start` goes on.
        """
        if self._dark is None:
            raise ConnectionLost(self.name, "spectrum: no dark frame yet: start it first")
        counts = self._take()
        power = self._interpolated(counts - self._dark) * self._watts_per_count
        power[self._saturated(counts)] = self.power.high
        return power

    def _take(self) -> Array:
        """Return one spectrum, (pixels,) counts."""
        self._abort.check("spectrum")
        counts = self._call("spectrum", self._link.intensities)
        if len(counts) != self._pixels:
            message = f"spectrum: {len(counts)} of {self._pixels} pixels"
            raise ProtocolError(self.name, message)
        if not ((counts >= 0) & (counts <= self._full_scale)).all():
            message = f"spectrum: counts outside [0, {self._full_scale}]"
            raise ProtocolError(self.name, message)
        return counts

    def _take_dark(self) -> Array:
        """Return the mean of the dark frames, (pixels,) counts, or refuse it where there is light.

        Only the pixels that are used count.
        """
        dark = np.mean([self._take() for _ in range(self._dark_frames)], axis=0)
        brightest = float(np.maximum(dark[self._lower], dark[self._lower + 1]).max())
        limit = self._dark_share * self._full_scale
        if brightest > limit:
            message = f"dark frame: {brightest:.0f} counts are above {limit:.0f}; is the light off?"
            raise InstrumentRefused(self.name, message)
        return np.asarray(dark)

    def _interpolated(self, values: Array) -> Array:
        """Return values (pixels,) at the wanted wavelengths, (points,)."""
        return values[self._lower] * (1 - self._weight) + values[self._lower + 1] * self._weight

    def _saturated(self, counts: Array) -> NDArray[np.bool_]:
        """Say at which wavelengths (points,) a pixel that counts was at full scale."""
        full = counts >= self._full_scale
        below = full[self._lower] & (self._weight < 1)
        return np.asarray(below | (full[self._lower + 1] & (self._weight > 0)))

    # --- settings ---------------------------------------------------------------------------

    def _apply_integration_time(self) -> None:
        low, high = self._link.integration_limits_us()
        if not low <= self._time_us <= high:
            message = f"{self._time_us / 1000:g} ms is outside this device's "
            message += f"[{low / 1000:g}, {high / 1000:g}] ms"
            refuse(self.name, "integration_time", message)
        full_scale = self._link.full_scale_counts()
        if full_scale != self._full_scale:
            message = f"{self._full_scale} is not this device's {full_scale:g} counts"
            refuse(self.name, "full_scale_counts", message)
        self._call(
            f"integration time {self._time_us} us", self._link.set_integration_time, self._time_us
        )

    def _place_axis(self) -> None:
        """Find the two pixels around each wanted wavelength."""
        pixels_nm = self._call("wavelength coefficients", self._link.wavelengths_nm)
        if pixels_nm.ndim != 1 or len(pixels_nm) < 2 or not (np.diff(pixels_nm) > 0).all():
            message = "wavelength coefficients: the pixels' wavelengths do not rise"
            raise ProtocolError(self.name, message)
        wanted_nm = self._wavelengths_nm
        low, high = pixels_nm[[0, -1]]
        if wanted_nm[0] < low or wanted_nm[-1] > high:
            message = f"{wanted_nm[0]:g} to {wanted_nm[-1]:g} nm is outside this device's "
            refuse(self.name, "wavelength", message + f"[{low:g}, {high:g}] nm")
        above = np.clip(np.searchsorted(pixels_nm, wanted_nm), 1, len(pixels_nm) - 1)
        self._lower = above - 1
        step_nm = pixels_nm[above] - pixels_nm[self._lower]
        self._weight = (wanted_nm - pixels_nm[self._lower]) / step_nm
        self._pixels = len(pixels_nm)

    # --- the wire ---------------------------------------------------------------------------

    def _call(self, asked: str, function: Callable[..., T], *arguments: object) -> T:
        """Call the link, opened if need be; its errors become this driver's.

        After an error that leaves an answer under way the connection is closed: what comes late
        must not be taken for the next answer.
        """
        if self._closed:
            raise ConnectionLost(self.name, f"{asked}: the driver has been closed")
        if self._lost:
            raise ConnectionLost(self.name, f"{asked}: the connection was lost: start it again")
        try:
            self._open()
            return function(*arguments)
        except Refusal as error:
            raise InstrumentRefused(self.name, f"{asked}: {error}") from error
        except TimeoutError as error:
            self._lose()
            raise InstrumentTimeout(self.name, f"{asked}: no answer ({error})") from error
        except OSError as error:
            self._lose()
            raise ConnectionLost(self.name, f"{asked}: {error}") from error
        except BadAnswer as error:
            self._lose()
            raise ProtocolError(self.name, f"{asked}: {error}") from error
        except BaseException:  # an interrupt or an abort: the answer is still to come
            self._lose()
            raise

    def _open(self) -> None:
        if not self._opened:
            try:
                self._link.open(self._model, lambda: self._abort.check("waiting for an answer"))
            except ValueError as error:
                refuse(self.name, "model", str(error))
            self._opened = True

    def _lose(self) -> None:
        self._opened = False
        self._lost = True
        self._link.close()


def _check_axis(name: str, start_nm: float, stop_nm: float, points: int) -> None:
    if not 0 < start_nm < stop_nm < 1e5:
        message = f"{start_nm:g} to {stop_nm:g} nm is not a rising range above 0 nm"
        refuse(name, "wavelength", message)
    _check_range(name, "points", points, (2, MOST_POINTS), "points")


def _check_range(
    name: str, quantity: str, value: float, limits: tuple[float, float], unit: str
) -> None:
    low, high = limits
    if not low <= value <= high:
        refuse(name, quantity, f"{value:g} is outside [{low:g}, {high:g}] {unit}")

"""What is out of limits is refused before a byte is sent, whatever guise it comes in."""

import logging
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bad_drives import GUISES
from drivers.errors import LimitError
from drivers.limits import duty, rms, slew, transmission
from drivers.mock.firmware.bounds import Bounds
from drivers.shapers.wsp import as_written
from drivers.spec import ArraySpec

SAMPLES = 8
ANY = st.floats(width=64) | st.floats(-3, 3)
ROWS = arrays(np.float64, st.tuples(st.integers(1, 4), st.just(SAMPLES)), elements=ANY)
INSIDE = arrays(np.float64, (3, SAMPLES), elements=st.floats(-2, 2))
ENDS = st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(sorted).filter(lambda e: e[0] < e[1])


def series(dtype: str = "float64") -> ArraySpec:
    limits = rms(2.0, "V"), slew(4.0, "V"), duty(2 * SAMPLES)
    return ArraySpec("drive", "V", (SAMPLES,), -2.0, 2.0, dtype, row_limits=limits)


def refused(spec: ArraySpec, values: object) -> bool:
    try:
        spec.check(values, instrument="daq")  # type: ignore[arg-type]
    except LimitError:
        return True
    return False


# --- the range ---------------------------------------------------------------------------------


@given(ROWS, ENDS)
def test_it_lets_pass_what_is_inside_and_nothing_else(rows, ends):
    spec = series().narrowed(*ends)
    inside = all(ends[0] <= value <= ends[1] for value in rows.ravel().tolist())
    assert refused(spec, rows) is not inside


@pytest.mark.parametrize(
    "beyond", [np.nextafter(2.0, 3.0), np.nextafter(-2.0, -3.0), 2.5, -math.inf]
)
def test_a_refusal_says_what_where_and_why(beyond, caplog):
    rows = np.zeros((5, SAMPLES))
    rows[3, 6] = beyond
    with pytest.raises(LimitError) as caught:
        series().check(rows, instrument="left daq")
    message = str(caught.value)
    assert message.startswith("left daq: drive: ")
    assert message.endswith(" V at index [3, 6] is outside [-2, 2] V")
    assert float(message.split()[3]) == beyond or abs(beyond) > 2.1  # all digits where they matter
    assert caught.value.quantity == "drive"
    assert caplog.record_tuples == [("drivers.limits", logging.WARNING, message)]


@pytest.mark.parametrize("guise", GUISES)
def test_the_guise_of_an_array_changes_nothing(guise):
    good = np.linspace(-1.5, 1.5, 4 * SAMPLES).reshape(4, SAMPLES)
    bad = good.copy()
    bad[2, 1] = np.nextafter(np.float32(2), np.float32(3))
    checked = series().check(guise(good), instrument="daq")
    assert type(checked) is np.ndarray
    assert checked.dtype == np.float64
    assert checked.flags.c_contiguous
    assert np.array_equal(
        checked, good.astype(np.float32) if np.asarray(guise(good)).dtype == np.float32 else good
    )
    assert refused(series(), guise(bad))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, SAMPLES), dtype=bool),
        np.zeros((2, SAMPLES), dtype=object),
        np.zeros((2, SAMPLES), dtype=complex),
        np.zeros((2, SAMPLES), dtype="m8[s]"),
        np.full((2, SAMPLES), "1.0"),
        [[10**30] * SAMPLES],
        [[0.0] * SAMPLES, [0.0] * (SAMPLES - 1)],
        np.zeros((2, SAMPLES - 1)),
        np.zeros((SAMPLES, 2)),
        np.ma.masked_array(np.zeros((2, SAMPLES)), True),
        np.full((2, SAMPLES), np.longdouble("1e400")),
        None,
        0.0,
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(values):
    assert refused(series(), values)


def test_whole_numbers_are_numbers():
    checked = series().check(np.array([[1, -2, 0, 0, 0, 0, 0, 2]]), instrument="daq")
    assert checked.tolist() == [[1.0, -2.0, 0, 0, 0, 0, 0, 2.0]]
    assert refused(series(), np.full((1, SAMPLES), 2**63, dtype=np.uint64))


def test_no_rows_are_no_reason_to_refuse():
    assert series().check(np.zeros((0, SAMPLES)), instrument="daq").shape == (0, SAMPLES)


class TwoFaced:
    """Turns bad once it has been looked at."""

    looks = 0

    def __array__(self, dtype=None, copy=None):
        self.looks += 1
        return np.full((1, SAMPLES), 0.5 if self.looks == 1 else 99.0)


def test_what_was_checked_is_what_is_returned():
    assert series().check(TwoFaced(), instrument="daq").max() == 0.5
    rows = np.zeros((2, SAMPLES))
    checked = series().check(rows, instrument="daq")
    rows[:] = 99.0
    assert checked.max() == 0.0


# --- what a bench file may say ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("narrowing", "reason"),
    [
        ((-2.1, 2.0), "wider than the instrument's"),
        ({"high": 2.1}, "wider than the instrument's"),
        ({"peak": 3}, "wider than the instrument's"),
        ({"rms": 2.1}, r"a rms limit of 2.1 V is outside \(0, 2 V\], what the instrument takes"),
        ({"slew": -1.0}, r"a slew limit of -1 V/sample is outside \(0, 4 V/sample\]"),
        ({"duty": 0}, "duty"),
        ({"loudness": 1.0}, r"no limit 'loudness' \(there are: low, high, peak, rms, slew, duty\)"),
        ((math.nan, 1.0), "low = nan is not a finite number"),
        ({"rms": math.inf}, "rms = inf is not a finite number"),
        ({"low": True}, "low = True is not a finite number"),
        ((1.0, 1.0), "empty range"),
    ],
)
def test_limits_narrow_and_never_widen(narrowing, reason):
    with pytest.raises(ValueError, match=f"drive: .*{reason}"):
        series().limited(narrowing)


def test_a_pair_and_a_table_say_the_same():
    assert series().limited((-1.0, 1.0)) == series().limited({"low": -1.0, "high": 1.0})
    assert series().limited({"peak": 1.0}) == series().limited((-1.0, 1.0))
    assert series().limited(None) == series()


def test_a_peak_needs_a_range_around_zero():
    spec = ArraySpec("attenuation", "dB", (SAMPLES,), 0.0, 60.0)
    with pytest.raises(ValueError, match=r"no limit 'peak' \(there are: low, high\)"):
        spec.limited({"peak": 3.0})


# --- figures of a row ---------------------------------------------------------------------------


def figures(row: list[float]) -> dict[str, float]:
    """Return what is limited, sample by sample."""
    ended = [0.0, *row, 0.0]
    return {
        "rms": math.sqrt(math.fsum(v * v for v in row) / len(row)),
        "slew": max(abs(b - a) for a, b in pairwise(ended)),
        "duty": sum(v != 0 for v in row) / (2 * SAMPLES),
    }


@pytest.mark.parametrize("name", ["rms", "slew", "duty"])
@given(rows=INSIDE, share=st.floats(0.05, 0.95))
def test_a_row_beyond_its_limit_is_refused(name, rows, share):
    (limit,) = (limit for limit in series().row_limits if limit.name == name)
    most = share * limit.greatest
    found = [figures(row)[name] for row in rows.tolist()]
    spec = series().limited({name: most})
    assert spec.limits_rows
    if all(abs(f - most) > 1e-12 for f in found):  # else sums may be rounded this way or that
        assert refused(spec, rows) is (max(found) > most)


@pytest.mark.parametrize("name", ["rms", "slew", "duty"])
@given(rows=INSIDE)
def test_no_row_in_the_range_exceeds_what_the_hardware_takes(name, rows):
    (limit,) = (limit for limit in series().row_limits if limit.name == name)
    assert max(figures(row)[name] for row in rows.tolist()) <= limit.greatest * (1 + 1e-15)


def test_the_row_is_named(caplog):
    rows = np.zeros((4, SAMPLES))
    rows[2] = 1.0
    with pytest.raises(
        LimitError, match=r"daq: drive: rms 1 V of row 2 is above the limit of 0.5 V"
    ):
        series().limited({"rms": 0.5}).check(rows, instrument="daq")
    with pytest.raises(LimitError, match=r"slew 1 V/sample of row 12 is above .* 0.5 V/sample"):
        series().limited({"slew": 0.5}).check(rows, instrument="daq", first_row=10)
    with pytest.raises(LimitError, match=r"duty 0.5 of row 2 is above the limit of 0.25$"):
        series().limited({"duty": 0.25}).check(rows, instrument="daq")
    assert len(caplog.records) == 3


def test_a_single_row_needs_no_number():
    spec = ArraySpec(
        "attenuation", "dB", (4,), 0.0, 60.0, decimals=4, row_limits=(transmission(5e-5),)
    ).limited({"transmission": 0.5})
    assert not refused(spec, [0.0, 60.0, 60.0, 3.1])
    with pytest.raises(LimitError, match=r"shaper: attenuation: transmission 0.50\d* is above"):
        spec.check([0.0, 60.0, 60.0, 0.0], instrument="shaper")  # a hair of light at 60 dB


# --- rounding on the way ------------------------------------------------------------------------


@given(
    st.tuples(st.floats(0, 60), st.floats(0, 60)).map(sorted).filter(lambda e: e[1] - e[0] > 2e-4),
    st.data(),
)
def test_no_value_is_written_beyond_its_limit(ends, data):
    spec = ArraySpec("attenuation", "dB", (1,), 0.0, 60.0, decimals=4).limited(tuple(ends))
    assert ends[0] <= spec.low < spec.low + 1e-4 + ends[0]
    assert spec.high <= ends[1]
    nearby = st.sampled_from([spec.low, spec.high, *ends])
    value = data.draw(
        st.floats(spec.low, spec.high)
        | st.builds(lambda v, d: v + d, nearby, st.floats(-1e-4, 1e-4))
    )
    if not refused(spec, [value]):
        written = float(as_written(np.array([value]))[0])
        assert ends[0] <= written <= ends[1]


@given(ENDS.filter(lambda e: e[1] - e[0] > 1e-6), st.data())
def test_no_value_is_rounded_beyond_its_limit(ends, data):
    spec = ArraySpec("drive", "full scale", (1,), -2.0, 2.0, "float32").limited(tuple(ends))
    value = data.draw(st.floats(*ends) | st.sampled_from(ends))
    (sent,) = spec.check([value], instrument="sound")
    assert sent == np.float32(sent)
    assert ends[0] <= sent <= ends[1]
    assert abs(sent - value) <= np.spacing(np.float32(max(abs(value), 1e-37)))


@settings(max_examples=300)
@given(
    ENDS,
    st.floats(0, 1) | st.floats(0, 1e-9) | st.floats(0, 1e-9).map(lambda v: 1 - v),
)
def test_what_is_normal_is_physically_within_the_range(ends, normalised):
    spec = ArraySpec("x", "V", (1,), *ends)
    assert not refused(spec, spec.to_physical(np.array([normalised])))
    assert spec.to_physical(np.array([0.0, 1.0])).tolist() == list(ends)
    assert refused(spec, spec.to_physical(np.array([1.1]))) or 0.1 * (ends[1] - ends[0]) < 1e-16


# --- the far end's own count ---------------------------------------------------------------------


def test_the_far_end_counts_single_precision_exactly():
    bounds = Bounds(-0.6, 0.6)
    assert bounds.outside(np.array([0.6, -0.6])) == 0
    assert float(np.float32(0.6)) > 0.6
    assert bounds.outside(np.array([0.6, -0.6, 0.5, np.nan], dtype=np.float32)) == 3
    assert bounds.outside(np.zeros((0, 3))) == 0


def test_the_far_end_counts_figures_of_rows():
    rows = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert Bounds(-1, 1, rms=0.4).rows_outside(rows) == 1
    assert Bounds(-1, 1, slew=1.0).rows_outside(rows) == 1
    assert Bounds(-1, 1, slew=0.4).rows_outside(rows) == 2
    assert Bounds(-1, 1, driven=1).rows_outside(rows) == 2
    assert Bounds(-1, 1, rms=1.0, slew=2.0, driven=2).rows_outside(rows) == 0
    assert Bounds(-1, 1).rows_outside(np.full((2, 3), np.nan)) == 0
    assert Bounds(-1, 1, rms=1.0).rows_outside(np.full((2, 3), np.nan)) == 2

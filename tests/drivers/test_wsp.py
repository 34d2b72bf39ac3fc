"""The profile text agrees with Python's own formatting and reading, in every digit."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from drivers.shapers.wsp import ProfileFormat, ProfileReader, parse_profile
from profiles import format_profile

NUMBER = st.floats(-999.999, 999.999)
# Ties of the fourth decimal: odd multiples of 1/32 are exact in binary, their neighbours are not.
TIE = st.integers(-15_990, 15_990).map(lambda k: (2 * k + 1) / 32) | st.integers(
    -99_999, 99_999
).map(lambda k: (2 * k + 1) * 5e-5)


def plain(frequencies, attenuation, phase, port):
    columns = zip(frequencies, attenuation, phase, strict=True)
    return "".join(f"{f:.4f}\t{a:.4f}\t{p:.4f}\t{port}\n" for f, a, p in columns)


def as_text(values):
    """Tell -0.0 from 0.0 too."""
    return [repr(v) for v in values.tolist()]


def columns(elements):
    return hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(1, 12)), elements=elements)


@given(values=columns(NUMBER | TIE), port=st.integers(0, 9))
def test_format_is_what_percent_formatting_gives(values, port):
    frequencies = 191.25 + 0.001 * np.arange(values.shape[1])
    assert format_profile(frequencies, *values, port) == plain(frequencies, *values, port)


@pytest.mark.parametrize("value", [0.03125, 0.09375, -0.03125, 0.00005, 2.00005, 59.99995, -0.0])
def test_ties_and_signs(value):
    values = np.array([value])
    assert format_profile(np.array([193.0]), values, -values, 1) == plain(
        [193.0], values, -values, 1
    )


@given(values=columns(NUMBER), port=st.integers(0, 9))
def test_parse_reads_back_what_was_written(values, port):
    frequencies = 191.25 + 0.001 * np.arange(values.shape[1])
    text = format_profile(frequencies, *values, port)
    profile = parse_profile(text)
    fields = list(zip(*(line.split("\t") for line in text.splitlines()), strict=True))
    assert as_text(profile.frequencies_thz) == [repr(float(f)) for f in fields[0]]
    assert as_text(profile.attenuation_db) == [repr(float(f)) for f in fields[1]]
    assert as_text(profile.phase_rad) == [repr(float(f)) for f in fields[2]]
    assert profile.port.tolist() == [port] * values.shape[1]


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["193.1", "193.100", "193.10000", "1.931e2", " 193.1000"]),
            st.sampled_from(["0", "-1.5", "60.0000", "+3.0000", ".5", "1e1", "1234.0000"]),
            st.sampled_from(["3.1416", "-3.141593", "0"]),
            st.sampled_from(["0", "1", "12"]),
        ),
        min_size=1,
        max_size=6,
    ),
    end=st.sampled_from(["\n", "\r\n", ""]),
)
def test_parse_reads_every_legal_spelling(rows, end):
    text = "\n".join("\t".join(row) for row in rows) + end
    profile = parse_profile(text)
    assert profile.frequencies_thz.tolist() == [float(row[0]) for row in rows]
    assert profile.attenuation_db.tolist() == [float(row[1]) for row in rows]
    assert profile.phase_rad.tolist() == [float(row[2]) for row in rows]
    assert profile.port.tolist() == [int(row[3]) for row in rows]


@given(text=st.text(alphabet="0123456789.-+e\t\n nan", max_size=120))
def test_both_ways_of_reading_agree_on_any_text(text):
    try:
        expected = [
            (float(f), float(a), float(p), int(port))
            for f, a, p, port in (line.split("\t") for line in text.splitlines())
        ]
    except ValueError:
        with pytest.raises(ValueError, match="line"):
            parse_profile(text)
        return
    profile = parse_profile(text)
    arrays = (profile.frequencies_thz, profile.attenuation_db, profile.phase_rad, profile.port)
    actual = list(zip(*(a.tolist() for a in arrays), strict=True))
    np.testing.assert_equal(actual, expected)


@pytest.mark.parametrize(
    "text", ["garbage\n", "193.1000\t1.0000\t0.0000\n", "193.1\t1\t0\t1\t1\n", "1\t1\t1\t1.0\n"]
)
def test_parse_names_the_bad_line(text):
    good = "193.1000\t1.0000\t0.0000\t1\n"
    with pytest.raises(ValueError, match="line 2"):
        parse_profile(good + text)


def test_parse_refuses_what_is_not_ascii():
    with pytest.raises(ValueError, match="ascii"):
        parse_profile("193.1000\t1.0000\t0.0000\t²\n")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1000.0, 999.99996])
def test_format_refuses_what_the_columns_cannot_hold(bad):
    with pytest.raises(ValueError, match="finite numbers below 1000"):
        format_profile(np.array([193.0]), np.array([bad]), np.zeros(1), 1)


def test_format_leaves_its_input_and_earlier_texts_alone():
    layout = ProfileFormat(np.array([193.0, 193.001]), 1)
    attenuation, phase = np.array([-0.0, 61.5]), np.array([3.0, 4.0])
    first = layout.format(attenuation, phase)
    layout.format(np.array([100.0, 2.0]), phase)
    assert first == b"193.0000\t-0.0000\t3.0000\t1\n193.0010\t61.5000\t4.0000\t1\n"
    assert attenuation.tolist() == [-0.0, 61.5]
    assert phase.tolist() == [3.0, 4.0]


@given(values=columns(NUMBER))
def test_escaped_separators_give_the_inside_of_a_json_string(values):
    frequencies = 191.25 + 0.001 * np.arange(values.shape[1])
    escaped = ProfileFormat(frequencies, 1, (rb"\t", rb"\n")).format(*values)
    assert b'"%s"' % escaped == json.dumps(plain(frequencies, *values, 1)).encode()


def arrays(profile):
    return [
        profile.frequencies_thz,
        profile.attenuation_db,
        profile.phase_rad,
        profile.port,
    ]


@given(profiles=st.lists(columns(NUMBER), min_size=1, max_size=4), port=st.integers(0, 9))
def test_a_reader_of_escaped_text_reads_what_json_gives(profiles, port):
    reader = ProfileReader((rb"\t", rb"\n"))
    for values in profiles:
        frequencies = 191.25 + 0.001 * np.arange(values.shape[1])
        escaped = ProfileFormat(frequencies, port, (rb"\t", rb"\n")).format(*values)
        expected = parse_profile(json.loads(b'"%s"' % escaped))
        found = reader.read(escaped)
        assert [as_text(a) for a in arrays(found)] == [as_text(a) for a in arrays(expected)]


@given(text=st.text(alphabet='0123.-tn\\\t"', max_size=60))
def test_a_reader_takes_nothing_but_whole_lines_of_numbers(text):
    good = rb"193.1000\t1.0000\t-2.0000\t1\n"
    data = good + text.encode() + good
    profile = ProfileReader((rb"\t", rb"\n")).read(data)
    if profile is not None:
        try:
            expected = parse_profile(json.loads(b'"%s"' % data))
        except ValueError:
            pytest.fail(f"read {data!r}")
        assert [as_text(a) for a in arrays(profile)] == [as_text(a) for a in arrays(expected)]


@pytest.mark.parametrize(
    "wrong",
    [
        rb"193.1010\t1.0000\t2.0000\t1\t",
        rb"193.1010\t1.0000\t2.0000\n1\n",
        rb"193.1010\t1.0000\t2.0000\t10\n",
        rb"193.1010\t1.0000\t2.0000\t/\n",
        rb"193.1010\t1.0000\t2.0000\t:\n",
        rb"193.1010\t1.000\t2.0000\t1\n",
        rb"193.1010\t1.0000\t2_0000\t1\n",
        rb"193.1010\t1.0000\t2.00:0\t1\n",
        rb"193.1010\t1234.0000\t2.0000\t1\n",
        rb"1193.1010\t1.0000\t2.0000\t1\n",
        rb"193.1010\t1.0000\t2.0000\t1\r",
        rb"193.1010\t1.0000\t2.0000\t1",
        rb"",
    ],
)
def test_a_reader_leaves_other_spellings_to_others(wrong):
    reader = ProfileReader((rb"\t", rb"\n"))
    good = rb"193.1000\t1.0000\t2.0000\t1\n"
    before = reader.read(good)
    assert reader.read(wrong) is None
    assert wrong == b"" or reader.read(good + wrong) is None
    again = reader.read(good)
    assert [as_text(a) for a in arrays(again)] == [as_text(a) for a in arrays(before)]


def test_a_reader_gives_the_same_grid_as_the_same_object():
    reader = ProfileReader()
    first, same, other, longer = (
        reader.read(format_profile(np.array(f), np.array(a), np.zeros(len(f)), 1).encode())
        for f, a in (
            ([193.0, 193.001], [1.0, 2.0]),
            ([193.0, 193.001], [3.0, 4.0]),
            ([193.0, 193.002], [3.0, 4.0]),
            ([193.0, 193.001, 193.002], [3.0, 4.0, 5.0]),
        )
    )
    assert same.frequencies_thz is first.frequencies_thz
    assert same.attenuation_db.tolist() == [3.0, 4.0]
    assert other.frequencies_thz.tolist() == [193.0, 193.002]
    assert longer.frequencies_thz.tolist() == [193.0, 193.001, 193.002]

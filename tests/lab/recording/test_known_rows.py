"""What a job has measured is not measured again, and only what is the same to the last bit."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab.recording.known_rows
from drivers.row_key import RowKey
from lab.errors import PassCancelled
from lab.measurement import ForwardPass, Measurement
from lab.recording.known_rows import KnownRows, PartlyKnown
from lab.recording.recorder import RowRecorder
from recorded_passes import BEGAN_S, described, measured

FIELDS = ("y", "saturated", "retried", "out_of_sync", "shots", "row_s")


def recorder(folder: Path, bench: str = "") -> RowRecorder:
    return RowRecorder(folder, lambda name: described(), bench=bench, ended=lambda job: False)


def known(folder: Path, since_s: float = 0.0, bench: str = "") -> KnownRows:
    with recorder(folder, bench) as rows:
        return rows.known("job", since_s)


def count(owned: PartlyKnown) -> int:
    return 0 if owned.known is None else int(owned.known.sum())


def part(forward_pass: ForwardPass, measurement: Measurement, rows: object) -> tuple:
    keys = [forward_pass.keys[i] for i in np.arange(len(forward_pass.keys))[rows]]
    p = replace(forward_pass, x=forward_pass.x[rows], theta=forward_pass.theta[rows], keys=keys)
    return p, replace(measurement, **{name: getattr(measurement, name)[rows] for name in FIELDS})


def assert_same(found: Measurement, expected: Measurement) -> None:
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype
        tolerance = 1e-6 if name == "row_s" else 0.0  # kept in whole nanoseconds
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=name)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), rows=st.integers(1, 12))
def test_a_pass_is_whole_whichever_of_its_rows_are_known(tmp_path_factory, data, rows):
    folder = tmp_path_factory.mktemp("rows")
    forward_pass, expected = measured(5, rows)
    there = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    with recorder(folder) as kept:
        if there.any():
            kept.add(*part(forward_pass, expected, there))
    owned = known(folder).of(forward_pass)
    assert count(owned) == there.sum()
    rest, measurement = part(forward_pass, expected, ~there)
    assert owned.rest.keys == rest.keys
    np.testing.assert_array_equal(owned.rest.x, rest.x)
    np.testing.assert_array_equal(owned.rest.theta, rest.theta)
    assert_same(owned.whole(measurement), expected)


def test_a_pass_that_could_not_be_queued_is_known_when_it_is_asked_for_again(tmp_path):
    forward_pass, measurement = measured(0, 3)
    with recorder(tmp_path) as rows:
        rows.add(forward_pass, measurement)
    found = known(tmp_path)
    assert [count(found.of(forward_pass)) for _ in range(2)] == [3, 3]


@pytest.mark.parametrize("what", ["x", "theta", "time_s", "stream", "index"])
def test_another_row_is_measured(tmp_path, what):
    forward_pass, measurement = measured(0, 3)
    with recorder(tmp_path) as rows:
        rows.add(forward_pass, measurement)
    keys = list(forward_pass.keys)
    other = {name: getattr(forward_pass, name).copy() for name in ("x", "theta")}
    if what in other:
        other[what][1, 0] = np.nextafter(other[what][1, 0], 1.0)
    elif what == "time_s":
        keys[1] = RowKey(keys[1].stream, keys[1].index, np.nextafter(keys[1].time_s, 1.0))
    else:
        step = {"stream": (1, 0), "index": (0, 100)}[what]
        keys[1] = RowKey(keys[1].stream + step[0], keys[1].index + step[1], keys[1].time_s)
    owned = known(tmp_path).of(replace(forward_pass, keys=keys, **other))
    assert owned.known.tolist() == [True, False, True]


def test_another_zero_is_another_drive(tmp_path):
    forward_pass, measurement = measured(0, 3)
    zero = replace(forward_pass, x=np.zeros((3, 2)))
    with recorder(tmp_path) as rows:
        rows.add(zero, measurement)
    assert count(known(tmp_path).of(zero)) == 3
    assert count(known(tmp_path).of(replace(zero, x=-zero.x))) == 0


@pytest.mark.parametrize("what", ["keys", "x", "theta"])
def test_of_a_pass_whose_arrays_do_not_belong_together_nothing_is_known(tmp_path, what):
    """It goes on as it is, to be refused by whoever checks it."""
    forward_pass, measurement = measured(0, 3)
    with recorder(tmp_path) as rows:
        rows.add(forward_pass, measurement)
    wrong = replace(forward_pass, **{what: getattr(forward_pass, what)[:2]})
    assert known(tmp_path).of(wrong).rest is wrong


def test_the_newest_of_a_row_counts(tmp_path):
    forward_pass, measurement = measured(0, 3, value=1.0)
    with recorder(tmp_path) as rows:
        rows.add(forward_pass, measurement)
        rows.add(forward_pass, replace(measurement, y=measurement.y + 1.0))
    assert (known(tmp_path).of(forward_pass).rows["y"] == 2.0).all()


def test_rows_of_an_earlier_time_or_another_bench_do_not_count(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 8))  # four a second
    assert len(known(tmp_path, since_s=BEGAN_S + 1.0)) == 4
    assert len(known(tmp_path, since_s=time.time() + 1e9)) == 0
    assert len(known(tmp_path, bench="another")) == 0
    assert len(known(tmp_path / "nothing")) == 0


def test_of_many_rows_the_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(lab.recording.known_rows, "_MOST_BYTES", 1000)
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 100))
    found = known(tmp_path)
    assert 5 < (number := len(found)) < 10
    assert np.flatnonzero(found.of(measured(0, 100)[0]).known).tolist() == [
        *range(100 - number, 100)
    ]


def test_a_record_that_cannot_be_read_is_measured_again(tmp_path, caplog):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 8))
    (tmp_path / "job.zarr" / "y" / "0.0").write_bytes(b"damaged")
    assert len(known(tmp_path)) == 0
    assert "what came after its checkpoint is measured again" in caplog.text


def test_a_record_without_its_attributes_is_measured_again(tmp_path, caplog):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 8))
    metadata = tmp_path / "job.zarr" / ".zmetadata"
    metadata.write_text(metadata.read_text().replace('"bench"', '"bank"'))
    assert len(known(tmp_path)) == 0
    assert "what came after its checkpoint is measured again" in caplog.text


def test_a_record_of_which_a_part_is_gone_is_measured_again(tmp_path, caplog):
    """Zarr would read zeros there."""
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 8))
    (tmp_path / "job.zarr" / "y" / "0.0").unlink()
    assert len(known(tmp_path)) == 0
    assert "what came after its checkpoint is measured again" in caplog.text


def test_rows_of_an_earlier_time_do_not_count_behind_later_ones(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(4, 4))
        rows.add(*measured(0, 4))  # a second earlier
    found = known(tmp_path, since_s=BEGAN_S + 1.0)
    assert found.of(measured(0, 8)[0]).known is None
    assert count(found.of(measured(4, 4)[0])) == 4


def test_rows_that_nobody_asks_for_are_forgotten(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 8))
    found = known(tmp_path)
    for first in range(1000, 1100):
        assert len(found) == 8
        found.of(measured(first, 1)[0])
    assert len(found) == 0


def test_of_a_pass_that_was_broken_off_the_rows_that_it_had_are_kept():
    forward_pass, whole = measured(0, 5)
    error = PassCancelled("ended after 2 of 5 rows")
    owned = PartlyKnown(forward_pass)
    assert owned.measured(error) is None
    error.measured = part(forward_pass, whole, slice(0, 2))[1]
    kept, measurement = owned.measured(error)
    assert (kept.keys, len(kept.x), len(kept.theta)) == (forward_pass.keys[:2], 2, 2)
    assert_same(measurement, error.measured)

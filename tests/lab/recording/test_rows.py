"""What a recorder was given is what xarray reads: bit for bit, labelled, each row once."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import record_for_ever
from lab.errors import Conflict, DataError
from lab.recording.copying import newest_rows
from lab.recording.layout import Layout, columns_of, layout_of
from lab.recording.reading import open_rows
from lab.recording.recorder import RowRecorder
from lab.recording.writer import RowWriter, size_of
from recorded_passes import BEGAN_S, described, measured

LIMIT_S = 60.0


def recorder(folder: Path, y_size: int = 3, **options) -> RowRecorder:
    options = {"bench": "digest", "ended": lambda job: False, **options}
    return RowRecorder(folder, lambda name: described(y_size), **options)


def test_rows_are_labelled_with_units_and_ranges(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 5, calibration="monday"))
        rows.add(*measured(5, 1, calibration="tuesday"))
    found = open_rows(tmp_path / "job.zarr")
    assert dict(found.sizes) == {"row": 6, "x_channel": 2, "theta_channel": 4, "y_channel": 3}
    assert found.y.dims == ("row", "y_channel")
    assert (found.x.units, found.x.long_name, found.x.sent_as) == ("V", "drive", "float32")
    assert (found.y.units, found.y.valid_range) == ("mA", [0.0, 20.0])
    assert {name: found.attrs[name] for name in ("job", "system", "bench", "row_time_s")} == {
        "job": "job",
        "system": "rig",
        "bench": "digest",
        "row_time_s": 0.25,
    }
    assert set(found.coords) == {"stream", "index", "time_s", "shot", "measured", "calibration"}
    assert found.stream.values.tolist() == [7] * 6
    assert found["index"].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.time_s.values.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    assert found.shot.values.tolist() == [1000, 1001, 1002, 1003, 1004, 1005]
    assert found.calibration.values.tolist() == ["monday"] * 5 + ["tuesday"]
    assert found.measured.values[1] == np.datetime64("2027-01-15T08:00:00.25")
    assert np.datetime64("2027-01-15T08:00:00").astype(float) == BEGAN_S
    assert found.saturated.values.tolist() == [True, False] * 3
    assert found.retried.values.tolist() == [True, False, False] * 2
    assert found.out_of_sync.values.tolist() == [True, False, False, False, False, True]


@settings(max_examples=15, deadline=None)
@given(
    passes=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    committed=st.integers(0, 255),
    reopened=st.integers(0, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_come_back_bit_for_bit_however_they_were_written(passes, committed, reopened, seed):
    rng = np.random.default_rng(seed)
    put = [measured(100 * n, rows) for n, rows in enumerate(passes)]
    layout = replace(layout_of(described(), "job", ""), chunk_rows=8)
    with TemporaryDirectory() as folder:
        group = Path(folder, "job.zarr")
        writer = RowWriter(group, layout)
        for n, (forward_pass, measurement) in enumerate(put):
            measurement.y[:] = _any_bits(rng, measurement.y.shape)
            writer.append(columns_of(layout, forward_pass, measurement, 0))
            if (committed | reopened) >> n & 1:
                writer.commit()
            if reopened >> n & 1:
                writer = RowWriter(group, replace(layout, chunk_rows=16))  # of another version
        writer.code("")
        writer.commit()
        assert writer.bytes == size_of(group)
        found = open_rows(group).load()
    for name in ("x", "theta"):
        expected = np.concatenate([getattr(forward_pass, name) for forward_pass, _ in put])
        assert found[name].values.tobytes() == expected.tobytes()
    assert found.y.values.tobytes() == np.concatenate([m.y for _, m in put]).tobytes()
    assert found.shot.values.tolist() == np.concatenate([m.shots for _, m in put]).tolist()


def _any_bits(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return NaNs of all kinds, infinities, denormal numbers, and others."""
    return rng.integers(0, 2**64, shape, dtype=np.uint64).view(np.float64)


def test_of_a_row_that_was_measured_twice_the_newest_is_read(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 10, value=1.0))
        rows.add(*measured(6, 8, value=2.0))
        rows.add(*measured(6, 2, value=3.0, stream=8))  # another row
    found = open_rows(tmp_path / "job.zarr")
    assert found["index"].values.tolist() == [*range(14), 6, 7]
    assert found.y[:, 0].values.tolist() == [1.0] * 6 + [2.0] * 8 + [3.0] * 2


@given(
    keys=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40),
)
def test_the_newest_of_each_key_in_the_order_of_measuring(keys):
    stream, index = (np.array([key[i] for key in keys], dtype=np.int64) for i in (0, 1))
    newest = {key: position for position, key in enumerate(keys)}
    assert newest_rows(stream, index).tolist() == sorted(newest.values())


def test_rows_without_keys_are_all_kept(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 3, keyed=False))
        rows.add(*measured(3, 3, keyed=False))
    found = open_rows(tmp_path / "job.zarr")
    assert found.shot.values.tolist() == found["index"].values.tolist() == list(range(1000, 1006))


def test_an_append_that_is_broken_off_is_not_seen(tmp_path):
    layout = layout_of(described(4096), "job", "")
    with recorder(tmp_path, 4096) as rows:
        rows.add(*measured(0, 100, y_size=4096, value=1.0))
    before = open_rows(tmp_path / "job.zarr").load()
    broken_off = RowWriter(tmp_path / "job.zarr", layout)
    broken_off.append(columns(layout, 100, 500))  # into the last chunk, and whole new ones
    assert open_rows(tmp_path / "job.zarr").load().identical(before)
    with recorder(tmp_path, 4096) as rows:
        rows.add(*measured(100, 100, y_size=4096, value=2.0))
    found = open_rows(tmp_path / "job.zarr")
    assert found.y[:, 0].values.tolist() == [1.0] * 100 + [2.0] * 100


def columns(layout: Layout, first: int, rows: int) -> dict[str, np.ndarray]:
    return columns_of(layout, *measured(first, rows, y_size=4096, value=9.0), 0)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_what_was_flushed_outlives_kills_and_is_read_once(tmp_path):
    """Each run goes on somewhere before the end of what is safe, as from a checkpoint."""
    rng, first, starts = random.Random(), 0, []
    for run in range(3):
        command = [sys.executable, record_for_ever.__file__, str(tmp_path), str(run), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(rng.randrange(2, 12)):
                safe = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.05))  # any moment will do
            process.send_signal(signal.SIGKILL)
        starts.append(first)
        found = open_rows(tmp_path / "job.zarr").load()
        assert set(range(safe)) <= set(found["index"].values.tolist())
        assert found.sizes["row"] == len(set(found["index"].values.tolist()))
        assert (found.y.values == found.y.values[:, :1]).all()
        first = rng.randrange(safe // 2, safe)
        whole = found.isel(row=found["index"].values < safe)
        assert whole.y[:, 0].values.tolist() == [
            newest_run(starts, index) for index in whole["index"].values
        ]


def newest_run(starts: list[int], index: int) -> float:
    """Return the last run that has measured a row: they all went beyond where the next began."""
    return float(max(run for run, start in enumerate(starts) if start <= index))


def test_a_packed_copy_is_opened_as_a_file_and_as_a_folder(tmp_path):
    with recorder(tmp_path / "rows") as rows:
        rows.add(*measured(0, 20, calibration="monday"))
        rows.add(*measured(10, 20))
        packed = rows.pack("job")
        here = open_rows(tmp_path / "rows/job.zarr").load()
        found = open_rows(packed).load()
    assert found.attrs.pop("notes") == []
    xr.testing.assert_identical(found, here)
    assert xr.open_zarr(tmp_path / "rows/job.zarr").sizes["row"] == 40  # without `open_rows`


def test_without_rows_there_is_nothing_to_pack_or_to_open(tmp_path):
    with recorder(tmp_path) as rows, pytest.raises(Conflict, match="job other has no rows: none"):
        rows.pack("other")
    with pytest.raises(DataError, match=r"other\.zarr: no measured rows"):
        open_rows(tmp_path / "other.zarr")


def test_a_copy_that_was_being_packed_when_the_service_died_is_cleared(tmp_path):
    with recorder(tmp_path) as rows:
        rows.add(*measured(0, 3))
        left = rows.pack("job")
    with recorder(tmp_path):
        assert not left.parent.exists()

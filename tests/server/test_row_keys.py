"""Rows that carry their keys over HTTP are measured as if they were asked for here."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.row_key import KEY_NUMBERS, RowKey
from lab.bench import open_bench
from lab.remote import _as_npz
from server.arrays import pass_from_npz
from server.views import PassOptions

KEYS = [RowKey(7, 3, 2.25), RowKey(7, 4, 3.0), RowKey(2**62 + 1, 2**53 + 1, 0.1)]
NPZ = "application/x-npz"
PATH = "/systems/optics/passes"


def rows() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"x": rng.uniform(-0.5, 1, (3, 50)), "theta": rng.uniform(-0.5, 1, (3, 50))}


def parts() -> dict[str, list[Any]]:
    return {
        "key_stream": [key.stream for key in KEYS],
        "key_index": [key.index for key in KEYS],
        "key_time_s": [key.time_s for key in KEYS],
    }


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.anyio
async def test_noise_and_drift_are_those_of_the_keys(http, bench):
    with open_bench(bench) as here:
        expected = here.system("optics").transform(**rows(), keys=KEYS).y
    as_lists = {name: array.tolist() for name, array in rows().items()}
    options = {"job": "j", "depth": 1}
    found = await http.post(PATH, json={**as_lists, **parts(), **options})
    assert np.array_equal(found.json()["y"], expected)
    body = npz(**rows(), **{name: np.array(part) for name, part in parts().items()})
    headers = {"Content-Type": NPZ, "Accept": NPZ}
    found = await http.post(PATH, content=body, headers=headers, params=options)
    with np.load(io.BytesIO(found.content)) as arrays:
        assert np.array_equal(arrays["y"], expected)
    without = await http.post(PATH, json=as_lists)
    assert not np.array_equal(without.json()["y"], expected)


@pytest.mark.anyio
async def test_rows_of_an_attempt_that_does_not_count_are_refused(http):
    as_lists = {name: array.tolist() for name, array in rows().items()}
    options = {"job": "j", "attempt": 3}  # no such job
    refused = await http.post(PATH, json={**as_lists, **parts(), **options})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:pnnlab:problem:superseded")
    [status] = (await http.get("/systems")).json()
    assert status["status"]["rows_done"] == 0


finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.integers(0, KEY_NUMBERS - 1)
times = st.floats(min_value=0, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite, numbers, numbers, times), min_size=1, max_size=5))
def test_what_is_sent_arrives_bit_for_bit(drawn):
    x, theta = (np.array([[row[i]] for row in drawn]) for i in (0, 1))
    keys = [RowKey(*row[2:]) for row in drawn]
    body = _as_npz(x, theta, keys)
    found = pass_from_npz("optics", body, PassOptions(), "ann", 2**20)
    assert (found.x.tobytes(), found.theta.tobytes()) == (x.tobytes(), theta.tobytes())
    assert found.keys == keys
    assert [np.float64(k.time_s).tobytes() for k in found.keys] == [
        np.float64(k.time_s).tobytes() for k in keys
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"key_stream": None}, "key_stream"),
        ({"key_time_s": None}, "key_time_s"),
        ({"key_index": [3, 4]}, "key_stream"),
        ({"key_stream": [7, 7, -1]}, "key_stream"),
        ({"key_index": np.array([3, 4, 2**63], dtype=np.uint64)}, "key_index"),
        ({"key_index": [3.0, 4.0, 5.0]}, "key_index"),
        ({"key_index": [[3], [4], [5]]}, "key_index"),
        ({"key_time_s": [0.0, 1.0, np.nan]}, "key_time_s"),
        ({"key_time_s": [0.0, 1.0, np.inf]}, "key_time_s"),
        ({"key_time_s": [0.0, 1.0, -1.0]}, "key_time_s"),
        ({"key_time_s": ["0", "1", "2"]}, "key_time_s"),
    ],
)
async def test_keys_that_are_none_are_refused(http, changes, at):
    given = {name: part for name, part in {**parts(), **changes}.items() if part is not None}
    arrays = {name: np.array(part) for name, part in given.items()}
    response = await http.post(PATH, content=npz(**rows(), **arrays), headers={"Content-Type": NPZ})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == f"#/{at}"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"key_stream": None}, "#/key_stream"),
        ({"key_stream": [7, 7, 2**63]}, "#/key_stream/2"),
        ({"key_index": [3, 4, 5.5]}, "#/key_index/2"),
        ({"key_time_s": [0, 1, -1]}, "#/key_time_s/2"),
        ({"key_time_s": [0, 1]}, "#/key_stream"),
    ],
)
async def test_so_are_they_in_json(http, changes, at):
    as_lists = {name: array.tolist() for name, array in rows().items()}
    response = await http.post(PATH, json={**as_lists, **parts(), **changes})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == at


@pytest.mark.anyio
async def test_another_number_of_keys_than_rows_is_refused(http):
    as_lists = {name: array[:2].tolist() for name, array in rows().items()}
    response = await http.post(PATH, json={**as_lists, **parts()})
    assert response.status_code == 422
    assert "2 rows but 3 row keys" in response.json()["detail"]

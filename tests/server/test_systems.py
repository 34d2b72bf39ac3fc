"""Systems and forward passes over HTTP."""

import asyncio
import io
import json
import logging
import zipfile

import httpx
import numpy as np
import pytest

from drivers.errors import InstrumentTimeout
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from server.app import create_app
from server.arrays import JSON_LIMIT

pytestmark = pytest.mark.anyio

NPZ = "application/x-npz"


def rows(count: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"x": rng.uniform(-0.5, 1, (count, 50)), "theta": rng.uniform(-0.5, 1, (count, 50))}


def as_json(arrays: dict[str, np.ndarray], **more) -> dict:
    return {**{name: array.tolist() for name, array in arrays.items()}, **more}


def as_npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


async def test_systems_are_described_in_physical_units(http):
    [listed] = (await http.get("/systems")).json()
    system = (await http.get("/systems/optics")).json()
    assert {k: v for k, v in listed.items() if k != "status"} == {
        k: v for k, v in system.items() if k != "status"
    }
    assert system["x"] == {
        "name": "x",
        "unit": "relative field",
        "shape": [50],
        "low": -0.5,
        "high": 1.0,
        "dtype": "float64",
        "decimals": None,
    }
    assert (system["drives"], system["family"]) == ("channels", "optics")
    assert (system["y"]["unit"], system["y"]["high"]) == ("W", pytest.approx(1.6e-6))
    assert (system["row_time_s"], system["simulated"]) == (0.75, True)
    assert (system["status"]["state"], system["status"]["rows_done"]) == ("ok", 0)
    assert 0 <= system["status"]["duty_cycle"] <= 1


async def test_a_pass_in_json(http):
    response = await http.post("/systems/optics/passes", json=as_json(rows(), client="ann"))
    assert response.status_code == 200
    measurement = response.json()
    y = np.array(measurement["y"])
    assert y.shape == (2, 50)
    assert (y > 0).any()
    assert measurement["saturated"] == [False, False]
    assert (measurement["shots"], measurement["system"]) == ([0, 1], "optics")
    assert measurement["retried"] == measurement["out_of_sync"] == [False, False]
    assert measurement["calibration"] == ""
    assert measurement["started_s"] == measurement["row_s"][0] <= measurement["row_s"][1]
    assert measurement["submitted_s"] <= measurement["started_s"] <= measurement["finished_s"]
    again = (await http.post("/systems/optics/passes", json=as_json(rows()))).json()
    assert again["shots"] == [2, 3]


async def test_a_pass_in_binary(http):
    response = await http.post(
        "/systems/optics/passes",
        content=as_npz(**rows(3)),
        headers={"Content-Type": NPZ, "Accept": NPZ},
    )
    assert response.headers["content-type"] == NPZ
    with np.load(io.BytesIO(response.content), allow_pickle=False) as answer:
        assert answer["y"].shape == (3, 50)
        assert answer["y"].dtype == np.float64
        assert answer["saturated"].tolist() == [False] * 3
        assert answer["shots"].tolist() == [0, 1, 2]
        assert answer["calibration"] == ""


async def test_both_forms_measure_the_same(bench, tmp_path):
    """Two fresh benches: the same rows, once as JSON and once as npz, give the same numbers."""
    answers = []
    for form in ("json", "npz"):
        app = create_app(bench, data_dir=tmp_path / form)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://lab/api/v1") as http,
        ):
            body = (
                {"json": as_json(rows())}
                if form == "json"
                else {"content": as_npz(**rows()), "headers": {"Content-Type": NPZ}}
            )
            answers.append((await http.post("/systems/optics/passes", **body)).json()["y"])
    assert answers[0] == answers[1]


async def test_fortran_order_and_other_numbers_are_read(http):
    theta = np.asfortranarray(np.zeros((2, 50), np.float32))
    body = as_npz(x=np.ones((2, 50), np.int8), theta=theta)
    response = await http.post(
        "/systems/optics/passes", content=body, headers={"Content-Type": NPZ}
    )
    assert response.status_code == 200


async def test_a_value_out_of_range_is_refused_with_its_field(http):
    bad = rows()
    bad["theta"][1, 7] = 1.5
    response = await http.post("/systems/optics/passes", json=as_json(bad))
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:pnnlab:problem:limit-error"
    assert problem["errors"][0]["pointer"] == "#/theta"
    assert problem["instrument"] == "optics"
    assert "1.5 relative field at index [1, 7]" in problem["detail"]
    status = (await http.get("/systems/optics")).json()["status"]
    assert (status["state"], status["rows_done"]) == ("ok", 0)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"x": [[0.0]], "theta": "no"}, "#/theta"),
        ({"theta": [[0.0]]}, "#/x"),
        ({"x": [[0.0]], "theta": [["a"]]}, "#/theta/0/0"),
        ({"x": [[0.0], [0.0, 1.0]], "theta": [[0.0]]}, "#/x"),
        ({"x": [[0.0]], "theta": [[0.0]], "thta": 1}, "#/thta"),
    ],
)
async def test_a_body_that_cannot_be_read_names_the_field(http, body, pointer):
    response = await http.post("/systems/optics/passes", json=body)
    assert response.status_code == 422
    assert [e["pointer"] for e in response.json()["errors"]] == [pointer]
    assert response.json()["type"] == "urn:pnnlab:problem:invalid-request"


async def test_rows_that_do_not_belong_together_are_refused(http):
    arrays = {"x": rows(2)["x"], "theta": rows(3)["theta"]}
    response = await http.post("/systems/optics/passes", json=as_json(arrays))
    assert response.status_code == 422
    assert "2 rows of x but 3 rows of theta" in response.json()["detail"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no npz archive"),
        (b"PK\x03\x04 something", "no npz archive"),
        (as_npz(x=np.zeros((1, 50))), "theta: the archive has no such array"),
        (as_npz(x=np.zeros((1, 50)), theta=np.array([["a"]])), "theta: shape"),
        (as_npz(x=np.array([[None]]), theta=np.zeros((1, 50))), "x: shape"),
        (as_npz(**rows(1))[:200], "no npz archive"),
        (as_npz(**rows(40))[:-400] + as_npz(**rows(40))[-400:-22], "no npz archive"),
    ],
)
async def test_an_archive_that_cannot_be_read_is_refused(http, content, says):
    response = await http.post(
        "/systems/optics/passes", content=content, headers={"Content-Type": NPZ}
    )
    assert response.status_code == 422
    assert says in response.json()["detail"]


def archive_with_header(header: bytes) -> bytes:
    """Return an npz archive of x and theta with this npy header before 800 bytes of zeros."""
    header += b" " * (117 - len(header)) + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 800
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", npy)
        archive.writestr("theta.npy", npy)
    return file.getvalue()


@pytest.mark.parametrize("header", [b"{'descr': (((", b"{'descr'", b'"""', b"\0", b"[" * 100, b"1"])
async def test_a_header_that_cannot_be_parsed_is_refused(http, header):
    response = await http.post(
        "/systems/optics/passes",
        content=archive_with_header(header),
        headers={"Content-Type": NPZ},
    )
    assert response.status_code == 422
    assert "x: no npy array of version 1 or 2" in response.json()["detail"]


async def test_a_header_that_lies_about_the_size_takes_no_memory(http):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    response = await http.post(
        "/systems/optics/passes",
        content=archive_with_header(header),
        headers={"Content-Type": NPZ},
    )
    assert response.status_code == 422
    assert "x: shape (1000000, 1000000) of float64 does not fit 800 bytes" in response.text


async def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(http):
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros((10_000, 50)), theta=np.zeros((1, 50)))
    assert len(file.getvalue()) < 100_000
    response = await http.post(
        "/systems/optics/passes", content=file.getvalue(), headers={"Content-Type": NPZ}
    )
    assert response.status_code == 422
    assert "unpacks to more than 2000000 bytes" in response.json()["detail"]


async def test_bodies_over_the_limit_get_413(http):
    response = await http.post(
        "/systems/optics/passes",
        content=b"0" * 2_000_001,
        headers={"Content-Type": NPZ},
    )
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:pnnlab:problem:content-too-large"


async def test_bodies_that_grow_over_the_limit_get_413(http):
    async def endless():
        for _ in range(40):
            yield b" " * 100_000

    response = await http.post(
        "/systems/optics/passes", content=endless(), headers={"Content-Type": NPZ}
    )
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


async def test_json_has_a_limit_of_its_own(http):
    body = json.dumps(as_json(rows(1))).encode()
    response = await http.post(
        "/systems/optics/passes",
        content=body + b" " * (JSON_LIMIT + 1 - len(body)),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 413
    assert "send application/x-npz" in response.json()["detail"]


async def test_another_kind_of_body_gets_415(http):
    response = await http.post(
        "/systems/optics/passes", content=b"1,2,3", headers={"Content-Type": "text/csv"}
    )
    assert response.status_code == 415


async def test_an_unknown_system_gets_404(http):
    for call in (
        http.get("/systems/nope"),
        http.post("/systems/nope/recover"),
        http.post("/systems/nope/passes", json=as_json(rows())),
    ):
        response = await call
        assert response.status_code == 404
        assert response.json()["detail"] == "no system 'nope' (there are: optics)"


async def test_a_fault_is_told_and_recovered_from(open_http, faulty):
    async with open_http(recovery_attempts=0) as http:
        with faulty():
            failed = await http.post("/systems/optics/passes", json=as_json(rows()))
        assert failed.status_code == 504
        assert failed.json()["type"] == "urn:pnnlab:problem:instrument-timeout"
        assert failed.json()["instrument"] == "spectrometer"
        refused = await http.post("/systems/optics/passes", json=as_json(rows()))
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:pnnlab:problem:system-faulted"
        assert "no answer in 5 s" in refused.json()["detail"]
        health = (await http.get("http://lab/healthz")).json()
        assert (health["status"], health["systems"]) == ("degraded", {"optics": "faulted"})
        ready = await http.get("http://lab/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.json()["reasons"] == ["system optics: faulted"]
        recovered = await http.post("/systems/optics/recover")
        assert (recovered.status_code, recovered.json()["state"]) == (200, "ok")
        assert (await http.post("/systems/optics/passes", json=as_json(rows()))).status_code == 200
        assert (await http.get("http://lab/healthz")).json()["status"] == "ok"
        assert (await http.get("http://lab/readyz")).status_code == 200


@pytest.mark.parametrize(("repeatable", "status"), [(True, 200), (False, 504)])
async def test_a_fault_heals_and_its_row_is_measured_again_if_it_may_be(
    http, monkeypatch, repeatable, status
):
    fails, measure = iter([True]), YokogawaAQ6370.measure

    def fails_once(spectrometer):
        if next(fails, False):
            raise InstrumentTimeout(spectrometer.name, "no answer in 5 s")
        return measure(spectrometer)

    monkeypatch.setattr(YokogawaAQ6370, "measure", fails_once)
    body = as_json(rows(), repeatable=repeatable)
    response = await http.post("/systems/optics/passes", json=body)
    assert response.status_code == status
    if repeatable:
        assert response.json()["retried"] == [True, False]
        assert response.json()["shots"] == [1, 2]
    again = await http.post("/systems/optics/passes", json=as_json(rows()))
    assert again.json()["retried"] == [False, False]


def test_a_client_that_goes_away_cancels_its_pass(
    bench, tmp_path, serve_in_thread, monkeypatch, gate, caplog
):
    app = create_app(bench, data_dir=tmp_path)
    with serve_in_thread(app) as url:
        # uvicorn keeps what it logs from the root logger
        monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [caplog.handler])
        with httpx.Client(base_url=f"{url}/api/v1") as http:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/systems/optics/passes", json=as_json(rows(50)), timeout=0.5)
            assert gate.measuring.is_set()
        with httpx.Client(base_url=f"{url}/api/v1") as http:
            hardware = app.state.lab.scheduler._queues["optics"].hardware
            [portion] = hardware.running.portions
            while not portion.ticket.stopped():  # the service hears of it in its own time
                assert http.get("/systems").status_code == 200
            gate.go_on.set()
            while (status := http.get("/systems/optics").json()["status"])["running"]:
                pass
    assert status["state"] == "ok"
    assert status["rows_done"] == 1
    assert [record.getMessage() for record in caplog.records] == []


async def test_no_row_starts_for_a_client_that_has_gone_already(app):
    body = json.dumps(as_json(rows(50))).encode()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    statuses = []

    async def receive():
        return next(messages, {"type": "http.disconnect"})

    async def send(message):
        statuses.append(message.get("status"))

    headers = [(b"content-type", b"application/json"), (b"host", b"lab")]
    path = "/api/v1/systems/optics/passes"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http"}
    await app(scope, receive, send)
    assert statuses[0] == 499
    assert app.state.lab.scheduler.status("optics").next_shot == 0


async def test_a_pass_in_flight_when_the_service_stops_is_told_so(app, http, gate):
    call = asyncio.create_task(http.post("/systems/optics/passes", json=as_json(rows(50))))
    await gate.reached()
    stopping = asyncio.create_task(app.state.lab.stop())
    while app.state.lab.scheduler.status("optics").state != "closed":
        await asyncio.sleep(0)
    gate.go_on.set()
    await stopping
    response = await call
    assert response.status_code == 503
    assert response.json()["type"] == "urn:pnnlab:problem:system-closed"

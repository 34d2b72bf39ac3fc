"""What is refused before a request is looked at."""

import json

import httpx
import pytest

from server.app import create_app
from server.doorkeeper import CONFIG_BODY_BYTES

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", "http://evil.example", 403),
        ("POST", "http://lab:81", 403),
        ("POST", "null", 403),
        ("POST", "http://[::1", 403),
        ("POST", "http://lab", 200),
        ("POST", None, 200),
        ("GET", "http://evil.example", 200),
    ],
)
async def test_pages_of_other_origins_do_not_drive_the_instruments(http, method, origin, status):
    path = "/systems/optics" + ("/recover" if method == "POST" else "")
    headers = {} if origin is None else {"Origin": origin}
    response = await http.request(method, path, headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.json()["type"] == "urn:pnnlab:problem:forbidden"


REFUSED = {400: "bad-request", 421: "misdirected-request"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("127.0.0.2:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("", 421),
        ("[::1", 400),
        ("::1]:8000", 400),
    ],
)
async def test_a_local_service_answers_under_local_names_only(bench, tmp_path, host, status):
    app = create_app(bench, data_dir=tmp_path, local_only=True)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://lab") as http,
    ):
        response = await http.get("/healthz", headers={"Host": host})
    assert response.status_code == status
    if status != 200:
        assert response.json()["type"] == f"urn:pnnlab:problem:{REFUSED[status]}"


@pytest.mark.parametrize("path", ["/systems", "/nope"])
async def test_a_host_that_cannot_be_read_is_refused_by_any_service(http, path):
    response = await http.get(path, headers={"Host": "[::1"})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:pnnlab:problem:bad-request"


CONFIGS = ["/jobs", "/twins", "/jobs/nope/cancel", "/systems/optics/recover"]
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", CONFIGS)
async def test_a_config_over_its_limit_gets_413(http, path):
    """The loop would parse it: 14 MB take it most of a second."""
    response = await http.post(path, content=b" " * (CONFIG_BODY_BYTES + 1), headers=JSON)
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:pnnlab:problem:content-too-large"
    assert str(CONFIG_BODY_BYTES) in response.json()["detail"]


@pytest.mark.parametrize(
    ("announced", "status", "said"),
    [
        ("9" * 18, 413, "9" * 18 + " bytes"),
        ("9" * 19, 413, "1e18 or more bytes"),
        ("7" * 5000, 413, "1e4999 or more bytes"),  # too long for an int
        ("0" * 5000 + "2", 200, ""),
    ],
)
async def test_any_length_that_is_announced_is_compared_with_the_limit(
    http, announced, status, said
):
    headers = {**JSON, "Content-Length": announced}
    response = await http.post("/systems/optics/recover", content=b"{}", headers=headers)
    assert response.status_code == status
    assert response.text.count(said) >= 1


@pytest.mark.parametrize("path", CONFIGS[:2])
async def test_a_config_that_grows_over_its_limit_gets_413(http, path):
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(100):
            sent += 10_000
            yield b" " * 10_000

    response = await http.post(path, content=endless(), headers=JSON)
    assert response.status_code == 413
    announced = await http.post(path, content=b" " * (CONFIG_BODY_BYTES + 1), headers=JSON)
    for member in ("type", "title"):
        assert response.json()[member] == announced.json()[member]
    assert response.json()["type"] == "urn:pnnlab:problem:content-too-large"
    assert CONFIG_BODY_BYTES < sent <= CONFIG_BODY_BYTES + 10_000  # read no further than needed


async def test_a_config_of_just_the_limit_is_read(http):
    body = json.dumps({"system": "nope"}).encode()
    response = await http.post("/jobs", content=body.ljust(CONFIG_BODY_BYTES), headers=JSON)
    assert response.status_code == 404

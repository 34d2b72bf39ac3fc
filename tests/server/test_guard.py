"""What is refused before a request is looked at."""

import httpx
import pytest

from server.app import create_app

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", "http://evil.example", 403),
        ("POST", "http://lab:81", 403),
        ("POST", "null", 403),
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


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("", 421),
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

"""Who does not know the shared secret gets nothing but the service's health."""

import json
import logging
import socket
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from lab.client import Client, ServiceError
from lab.errors import ConfigError
from lab.jobs.admission import refuse_strangers
from lab.jobs.hosts import HostBook, KnownSystem
from lab.jobs.store import Store
from lab.secret import MIN_LENGTH, secret_of_environment
from server.app import create_app
from server.cli import app as command

SECRET = "correct-horse/battery+staple=7"
OPENAPI = json.loads((Path(__file__).parents[2] / "server" / "openapi.json").read_text())
ROUTES = [
    (method.upper(), path.replace("{", "").replace("}", ""))
    for path, operations in OPENAPI["paths"].items()
    for method in operations
]


@pytest.fixture
async def closed(bench, tmp_path):
    app = create_app(bench, data_dir=tmp_path, secret=SECRET)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://lab") as http,
    ):
        yield http


@pytest.mark.anyio
async def test_every_route_but_the_health_is_closed(closed):
    shut = [*ROUTES, ("GET", "/api/v1/openapi.json"), ("GET", "/nowhere"), ("GET", "/healthz/")]
    for method, path in shut:
        response = await closed.request(method, path)
        if path in ("/healthz", "/readyz"):
            assert response.status_code == 200
            continue
        assert response.status_code == 401, path
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"] == 'Bearer realm="pnnlab"'
        assert response.json()["type"] == "urn:pnnlab:problem:unauthorized"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {SECRET}", 200),
        (f"bearer  {SECRET} ", 200),
        (f"Bearer {SECRET[:-1]}", 401),
        (f"Bearer {SECRET}7", 401),
        (f"Bearer {SECRET.upper()}", 401),
        ("Bearer ", 401),
        ("Bearer \xfc", 401),
        (f"Basic {SECRET}", 401),
        (SECRET, 401),
        ("", 401),
    ],
)
async def test_only_the_secret_opens(closed, caplog, header, status):
    caplog.set_level(logging.DEBUG)
    headers = {"Authorization": header.encode("latin-1")}
    response = await closed.get("/api/v1/systems", headers=headers)
    assert response.status_code == status
    assert SECRET not in response.text + caplog.text


@pytest.mark.anyio
async def test_a_body_is_not_read_from_a_stranger(closed):
    async def body():
        raise AssertionError("it was read")
        yield b""

    response = await closed.post("/api/v1/jobs", content=body())
    assert response.status_code == 401


def test_the_client_and_the_commands_show_the_secret_of_their_environment(
    bench, tmp_path, serve_in_thread, job_body, monkeypatch
):
    monkeypatch.delenv("PNNLAB_SECRET", raising=False)
    with serve_in_thread(create_app(bench, data_dir=tmp_path, secret=SECRET)) as url:
        with Client(url) as stranger, pytest.raises(ServiceError, match="PNNLAB_SECRET") as refused:
            stranger.stop()
        assert refused.value.status == 401
        with Client(url, secret=SECRET[::-1]) as wrong, pytest.raises(ServiceError, match="not"):
            next(wrong.watch("nope"))
        monkeypatch.setenv("PNNLAB_SECRET", SECRET)
        with Client(url) as friend:
            job = friend.submit(job_body)["id"]
            assert list(friend.watch(job))[-1].data["state"] == "succeeded"
            with friend.reserve("optics", ttl_s=1) as held:  # its heartbeats have another client
                first_s = held.granted["expires_s"]
                while friend.system("optics")["status"]["reservation"]["expires_s"] == first_s:
                    pass
        listed = CliRunner().invoke(command, ["jobs", "--url", url])
        assert job in listed.stdout


@pytest.mark.parametrize("name", ["PNNLAB_SECRET", "PNNLAB_SECRET_FILE"])
@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "this one 0"),
        ("s" * (MIN_LENGTH - 1), f"at least {MIN_LENGTH} characters, this one {MIN_LENGTH - 1}"),
        ("sixteen chars ok", "without spaces"),
        ("sixteen-chars-\xe4-ok", "ASCII"),
        ("sixteen-chars\r\nX-Ok: 1", "without spaces"),
    ],
)
def test_an_impossible_secret_is_refused_without_showing_it(
    monkeypatch, tmp_path, name, secret, reason
):
    file = tmp_path / "secret"
    file.write_text(secret, encoding="utf-8", newline="")
    for variable in ("PNNLAB_SECRET", "PNNLAB_SECRET_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, secret if name == "PNNLAB_SECRET" else str(file))
    with pytest.raises(ConfigError, match=reason) as refused:
        secret_of_environment()
    assert str(refused.value).startswith(f"{name}: ")
    assert not secret or secret not in str(refused.value)


def test_a_secret_may_stand_in_a_file(monkeypatch, tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    monkeypatch.delenv("PNNLAB_SECRET", raising=False)
    monkeypatch.setenv("PNNLAB_SECRET_FILE", str(file))
    assert secret_of_environment() == SECRET
    monkeypatch.setenv("PNNLAB_SECRET", SECRET)
    with pytest.raises(ConfigError, match="both set"):
        secret_of_environment()
    monkeypatch.delenv("PNNLAB_SECRET")
    monkeypatch.setenv("PNNLAB_SECRET_FILE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="No such file"):
        secret_of_environment()


def test_an_empty_name_of_a_file_is_no_file(monkeypatch):
    monkeypatch.setenv("PNNLAB_SECRET_FILE", "")
    monkeypatch.delenv("PNNLAB_SECRET", raising=False)
    assert secret_of_environment() is None
    monkeypatch.setenv("PNNLAB_SECRET", SECRET)
    assert secret_of_environment() == SECRET


def test_a_worker_does_not_start_with_a_secret_that_cannot_be_used(monkeypatch, tmp_path):
    monkeypatch.delenv("PNNLAB_SECRET", raising=False)
    monkeypatch.setenv("PNNLAB_SECRET_FILE", str(tmp_path / "nothing"))
    started: list[Path] = []
    monkeypatch.setattr("server.work.work", lambda data, *_, **__: started.append(data))
    run = CliRunner().invoke(command, ["worker", "--database", "postgresql://db.invalid/x"])
    assert run.exit_code == 1
    assert "PNNLAB_SECRET_FILE: " in run.stderr
    assert started == []


def on_bench(url: str, host: str = "bench") -> KnownSystem:
    return KnownSystem("optics", host, url, "optics", "b" * 64, simulated=True)


@pytest.fixture
def own_secret(monkeypatch):
    """Return what sets this process's secret; None: it has none."""

    def own(secret: str | None) -> None:
        for variable in ("PNNLAB_SECRET", "PNNLAB_SECRET_FILE"):
            monkeypatch.delenv(variable, raising=False)
        if secret is not None:
            monkeypatch.setenv("PNNLAB_SECRET", secret)

    return own


@pytest.mark.parametrize(("secret", "why"), [(None, "has none"), (SECRET[::-1], "has another")])
def test_a_worker_does_not_start_with_a_secret_that_a_service_refuses(
    bench, tmp_path, serve_in_thread, postgres_url, own_secret, secret, why
):
    own_secret(secret)
    app = create_app(bench, data_dir=tmp_path / "bench", secret=SECRET)
    with serve_in_thread(app) as url, Store(tmp_path / "store", postgres_url) as store:
        HostBook(store.database).enter("bench", {"optics": on_bench(url)}, url)
        options = ["--database", postgres_url, "--data", str(tmp_path / "worker")]
        run = CliRunner().invoke(command, ["worker", "--host-name", "w1", *options])
    assert (run.exit_code, run.stdout) == (1, "")
    told = f"host 'bench' at {url} asks for its shared secret, and this one {why}: set"
    assert run.stderr.startswith(f"pnnlab: {told} PNNLAB_SECRET or PNNLAB_SECRET_FILE")
    assert SECRET[::-1] not in run.stderr


def test_the_services_own_secret_is_let_in_and_who_is_away_refuses_nobody(
    bench, tmp_path, serve_in_thread, own_secret, monkeypatch
):
    monkeypatch.setattr("lab.jobs.admission._ANSWER_WITHIN_S", 0.3)
    app = create_app(bench, data_dir=tmp_path, secret=SECRET)
    with serve_in_thread(app) as url, socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        away = ["", "no address", "http://host:port", "http://127.0.0.1:1"]
        away.append(f"http://127.0.0.1:{port}")
        others = [on_bench(address, f"h{n}") for n, address in enumerate(away)]
        own_secret(SECRET)
        refuse_strangers([*others, on_bench(url)])
        own_secret(None)
        refuse_strangers(others)
        with pytest.raises(ConfigError, match="host 'bench'"):
            refuse_strangers([*others, on_bench(url)])

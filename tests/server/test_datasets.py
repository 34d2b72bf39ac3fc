"""Data sets over HTTP: upload, list, train on them."""

import functools
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import lab.client
import lab.datasets
import lab.uploading
import tiny_jobs
from lab.config import UPLOAD_BYTES
from lab.datasets.tasks import PUBLISHED
from lab.errors import ConfigError, UnknownName
from server.app import create_app
from server.cli import app as command
from tiny_jobs import have_done

pytestmark = pytest.mark.anyio

CSV = {"Content-Type": "text/csv"}
OCTETS = {"Content-Type": "application/octet-stream"}
TABLE = "x,y,label,group\n" + "".join(f"{i / 30},{i},{'ab'[i % 2]},{i // 3}\n" for i in range(30))


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, features=np.eye(4), labels=np.array([0, 1, 0, 1]))
    return file.getvalue()


@pytest.fixture(autouse=True)
def real_data(tiny, monkeypatch):
    """Let jobs load what was uploaded."""
    have_done(monkeypatch, tiny_jobs.real_data)


async def test_an_upload_is_checked_kept_and_listed(http):
    response = await http.post("/datasets", content=TABLE, headers=CSV, params={"name": "my.csv"})
    assert response.status_code == 201
    kept = response.json()
    task = kept.pop("task")
    assert kept == {
        "name": "my.csv",
        "rows": 30,
        "features": 2,
        "classes": ["a", "b"],
        "test_rows": None,
        "talkers": True,
    }
    other = (await http.post("/datasets", content=archive(), headers=OCTETS)).json()
    assert (other["name"], other["classes"]) == ("upload", ["0", "1"])
    listed = [entry["task"] for entry in (await http.get("/datasets")).json()]
    assert listed == [*(info.task for info in PUBLISHED), task, other["task"]]


async def test_the_same_content_is_kept_once(http):
    first, again = [
        (await http.post("/datasets", content=TABLE, headers=CSV)).json()["task"] for _ in range(2)
    ]
    assert first == again
    assert len((await http.get("/datasets")).json()) == len(PUBLISHED) + 1


async def test_data_that_cannot_be_used_get_422_and_are_not_kept(http):
    content = TABLE.replace(",b,", ",a,")
    response = await http.post("/datasets", content=content, headers=CSV, params={"name": "my.csv"})
    assert response.status_code == 422
    assert response.json()["type"] == "urn:pnnlab:problem:invalid-request"
    assert response.json()["detail"] == "my.csv: labels: there is one class only, 'a'"
    assert len((await http.get("/datasets")).json()) == len(PUBLISHED)


async def test_another_content_type_gets_415(http):
    response = await http.post("/datasets", json={"features": [[1]]})
    assert response.status_code == 415
    assert "application/octet-stream or text/csv, not 'application/json'" in response.text


async def test_more_than_the_limit_gets_413_with_the_limit(http):
    headers = {**OCTETS, "Content-Length": str(UPLOAD_BYTES + 1)}
    response = await http.post("/datasets", content=b"", headers=headers)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:pnnlab:problem:content-too-large"
    assert str(UPLOAD_BYTES) in response.json()["detail"]


async def test_an_upload_larger_than_a_pass_may_be_is_taken(http, app):
    # more than this app's max_body_bytes: spaces after the numbers
    content = TABLE.replace(",a,", f",a{' ' * 130_000},").replace(",b,", f",b{' ' * 130_000},")
    assert len(content) > app.state.max_body_bytes
    assert (await http.post("/datasets", content=content, headers=CSV)).status_code == 201


async def test_a_job_trains_on_an_upload_after_a_restart_too(bench, tmp_path, job_body, http):
    task = (await http.post("/datasets", content=TABLE, headers=CSV)).json()["task"]
    assert (tmp_path / "datasets").is_dir()
    body = {**job_body, "task": task, "split": "talker"}
    job = (await http.post("/jobs", json=body)).json()
    await http.get(f"/jobs/{job['id']}/events")
    ended = (await http.get(f"/jobs/{job['id']}")).json()
    assert ended["state"] == "succeeded", ended["error"]
    result = (await http.get(f"/jobs/{job['id']}/result")).json()
    assert result["classes"] == ["a", "b"]


def test_uploads_outlive_the_service(bench, tmp_path, serve_in_thread):
    with serve_in_thread(create_app(bench, data_dir=tmp_path)) as url, lab.client.Client(url) as c:
        task = c.upload_dataset({"features": np.eye(4), "labels": list("abab")})["task"]
    with serve_in_thread(create_app(bench, data_dir=tmp_path)) as url, lab.client.Client(url) as c:
        assert c.datasets()[-1]["task"] == task


@pytest.mark.parametrize("path", ["/jobs", "/twins"])
async def test_a_path_on_the_services_machine_is_refused(http, path):
    response = await http.post(path, json={"task": "file:/etc/passwd"})
    assert response.status_code == 422
    assert response.json()["type"] == "urn:pnnlab:problem:config-error"
    assert "'file:/etc/passwd' would be a file of the service's machine" in response.text


@pytest.mark.parametrize("path", ["/jobs", "/twins"])
async def test_an_upload_that_is_not_there_gets_404(http, path):
    response = await http.post(path, json={"task": "upload:0123456789abcdef"})
    assert response.status_code == 404
    assert "this service has no such upload" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/jobs", "/twins"])
async def test_another_task_is_refused_with_the_names_of_those_there_are(http, path):
    response = await http.post(path, json={"task": "upload:../../etc"})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/task"]
    assert "there are vowels, vowels12, digits" in response.json()["detail"]


def test_the_client_uploads_files_and_arrays(client, tmp_path):
    path = tmp_path / "my.csv"
    path.write_text(TABLE)
    kept = client.upload_dataset(path)
    assert (kept["name"], kept["rows"]) == ("my.csv", 30)
    assert client.upload_dataset(str(path), "other")["name"] == "other"
    arrays = {"features": np.eye(4), "labels": ["a", "b", "a", "b"], "test": [False] * 4}
    with pytest.raises(ConfigError, match="arrays: test: no row is marked"):
        client.upload_dataset(arrays)
    del arrays["test"]
    packed = client.upload_dataset(arrays)
    assert (packed["name"], packed["features"]) == ("arrays", 4)
    assert client.datasets()[-2:] == [packed, {**kept, "name": "other"}]
    with pytest.raises(UnknownName, match="no such upload"):
        client.submit(task="upload:0123456789abcdef")


def test_the_client_refuses_what_it_cannot_send(client, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"none\.csv: cannot be read \(No such file"):
        client.upload_dataset(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="arrays: 'group' is none of features, labels, groups"):
        client.upload_dataset({"features": np.eye(4), "group": [1, 2, 3, 4]})
    with pytest.raises(ConfigError, match="arrays: labels: Python objects"):
        client.upload_dataset({"features": np.eye(2), "labels": [object(), object()]})
    monkeypatch.setattr(lab.uploading, "UPLOAD_BYTES", 100)
    path = tmp_path / "my.csv"
    path.write_text(TABLE)
    reason = rf"my\.csv: {len(TABLE)} bytes are more than the 100 of an upload"
    with pytest.raises(ConfigError, match=reason):
        client.upload_dataset(path)


def test_the_command_prints_the_task(client, tmp_path):
    path = tmp_path / "my.csv"
    path.write_text(TABLE)
    run = functools.partial(CliRunner().invoke, command, env={"PNNLAB_URL": client.url})
    shown = run(["upload", str(path)])
    task = client.datasets()[-1]["task"]
    assert shown.stdout == f"{task}  my.csv: 30 rows, 2 features, 2 classes\n"
    kept = json.loads(run(["upload", str(path), "--name", "mine", "--json"]).stdout)
    assert (kept["task"], kept["name"]) == (task, "mine")
    path.write_text("1,2,3\n")
    refused = run(["upload", str(path)])
    assert refused.exit_code == 1
    assert refused.stderr == "pnnlab: my.csv: line 1: no header with a column 'label'\n"

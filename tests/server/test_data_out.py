"""Rows and metrics leave the service: over REST, with the client, with `pnnlab data`."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from lab.client import Client
from lab.errors import ConfigError, Conflict, UnknownName
from lab.recording.reading import metrics_dataset, open_rows
from server.app import create_app
from server.cli import app as pnnlab


@pytest.fixture
def job(client: Client, job_body) -> str:
    """Return the id of a job that has ended."""
    job = client.submit(job_body)["id"]
    assert list(client.watch(job))[-1].data["state"] == "succeeded"
    return job


def test_rows_and_metrics_leave_by_the_client(client, job, tmp_path):
    folder = client.rows(job, tmp_path / "out/rows.zarr")
    rows = xr.open_zarr(folder).load()  # without anything of this package
    assert rows.sizes["row"] == client.recorded(job)["rows"] > 0
    assert (rows.attrs["job"], rows.attrs["notes"]) == (job, [])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["rows.zarr"]
    with pytest.raises(ConfigError, match=r"rows\.zarr: is there already"):
        client.rows(job, folder)
    (tmp_path / "file").touch()
    for name in ("rows.zarr", "rows.zip"):
        with pytest.raises(ConfigError, match=rf"file/in/{name}: cannot be written \(Not a direc"):
            client.rows(job, tmp_path / "file/in" / name)
    file = client.rows(job, tmp_path / "rows.zarr.zip")
    assert zipfile.is_zipfile(file)
    xr.testing.assert_identical(open_rows(file).load(), open_rows(folder).load())

    metrics = client.metrics(job)
    table = client.metrics_csv(job, tmp_path / "metrics.csv", "epoch")
    with table.open(newline="") as lines:
        found = list(csv.DictReader(lines))
    epochs = metrics_dataset(metrics)
    assert [float(row["loss"]) for row in found] == epochs.loss.values.tolist()
    assert [int(row["number"]) for row in found] == epochs.number.values.tolist()


def test_measured_rows_are_what_a_pass_answers(client, job, tmp_path):
    """A row that is measured once more, at its key, would be the same but for its drift."""
    rows = open_rows(client.rows(job, tmp_path / "rows.zarr")).load()
    x, theta = rows.x.values[:1], rows.theta.values[:1]
    y = client.measure("optics", x, theta)["y"]
    assert np.corrcoef(y[0], rows.y.values[0])[0, 1] > 0.9


async def test_jobs_that_are_not_there_are_told(http):
    for path in ("rows", "recorded", "metrics.csv"):
        assert (await http.get(f"/jobs/nobody/{path}")).status_code == 404


def test_a_job_that_waits_has_no_rows_to_download(client, job_body, tmp_path):
    jobs = [client.submit(job_body, epochs=10_000)["id"] for _ in range(3)]  # two run at once
    with pytest.raises(Conflict, match=f"job {jobs[2]} has no rows: none was measured"):
        client.rows(jobs[2], tmp_path / "rows.zarr")
    with pytest.raises(UnknownName):
        client.rows("nobody", tmp_path / "rows.zarr")
    assert list(tmp_path.glob("rows.zarr*")) == []
    for job in reversed(jobs):
        client.cancel(job)


def test_a_service_that_records_none_says_so(bench, tmp_path, serve_in_thread, job_body):
    app = create_app(bench, data_dir=tmp_path / "data", rows_budget_gb=0)
    with serve_in_thread(app) as url, Client(url) as client:
        job = client.submit(job_body)["id"]
        list(client.watch(job))
        assert client.recorded(job) == {"rows": 0, "bytes": 0, "notes": []}
        with pytest.raises(Conflict, match="this service records none"):
            client.rows(job, tmp_path / "rows.zarr")
    assert not (tmp_path / "data/rows").exists()


def test_downloads_leave_nothing_behind(client, job, tmp_path):
    client.rows(job, tmp_path / "a.zip")
    client.rows(job, tmp_path / "b.zarr")
    client.recorded(job)  # after the answer was sent, the folder of its file is deleted
    assert {path.suffix for path in (tmp_path / "rows").iterdir()} == {".zarr"}


def test_pnnlab_data(client, job, tmp_path):
    run = CliRunner()
    said = run.invoke(pnnlab, ["data", job, "--url", client.url])
    rows = client.recorded(job)["rows"]
    assert said.output.startswith(f"job {job}: {rows} measured rows are recorded, ")
    out, table = tmp_path / "rows-out.zarr", tmp_path / "out.csv"
    options = ["--rows", str(out), "--metrics", str(table), "--kind", "fit"]
    said = run.invoke(pnnlab, ["data", job, *options, "--url", client.url])
    assert said.exit_code == 0, said.output
    assert said.output.splitlines()[1:] == [f"written: {out}", f"written: {table}"]
    assert open_rows(out).sizes["row"] == rows
    assert Path(table).read_text().startswith("number,kind,done,of,loss\n")

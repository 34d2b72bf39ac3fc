"""The commands of those who share a system."""

import json
import time
from datetime import datetime

import pytest
from typer.testing import CliRunner

from drivers.errors import InstrumentTimeout
from drivers.shapers.waveshaper import WaveShaperA
from lab.client import Client, client_name
from lab.held_reservation import HeldReservation
from server.app import create_app
from server.cli import app
from server.cli_queue import _show


def pnnlab(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def url(client, monkeypatch) -> str:
    monkeypatch.setenv("PNNLAB_URL", client.url)
    return client.url


def test_an_empty_queue(url):
    shown = pnnlab("queue").stdout
    assert shown == "optics: ok, 0 passes with 0 rows wait\n"
    assert pnnlab("queue", "optics").stdout == shown
    empty = {"system": "optics", "row_time_s": None, "waiting": 0, "waiting_rows": 0, "passes": []}
    assert json.loads(pnnlab("queue", "--json").stdout) == [empty]
    assert json.loads(pnnlab("queue", "optics", "--json").stdout) == [empty]


def test_a_queue_with_passes(capsys):
    start = datetime(2026, 11, 22, 18, 30, 15).timestamp()
    passes = [
        {"start_s": start, "finish_s": start + 45, "running": True, "rows": 100, "rows_done": 32},
        {"start_s": None, "finish_s": None, "running": False, "rows": 7, "rows_done": 0},
    ]
    who = {"client": "ann@lab", "priority": -5, "pass_id": "abc"}
    status = {"name": "optics", "state": "ok"}
    status["reservation"] = {"owner": "bob", "expires_s": start + 60}
    queue = {"waiting": 1, "waiting_rows": 7, "row_time_s": 0.75}
    _show(status, {**queue, "passes": [{**p, **who} for p in passes]})
    assert capsys.readouterr().out.splitlines() == [
        "optics: ok, 1 passes with 7 rows wait, 0.75 s a row, reserved by bob until 18:31:15",
        "  18:30:15 to 18:31:00  runs   32/100 rows     priority   -5  ann@lab  abc",
        "  --:--:-- to --:--:--  waits  0/7 rows        priority   -5  ann@lab  abc",
    ]


def test_reserving_and_releasing(url, client):
    granted = json.loads(pnnlab("reserve", "optics", "--ttl", "60", "--json").stdout)
    assert (granted["owner"], granted["ttl_s"]) == (client_name(), 60)
    assert client.system("optics")["status"]["reservation"] == granted
    refused = pnnlab("reserve", "optics", code=1)
    assert f"optics is reserved by {client_name()}" in refused.stderr
    number = str(granted["number"])
    released = json.loads(pnnlab("release", "optics", number, "--json").stdout)
    assert (released["name"], released["reservation"]) == ("optics", None)
    again = pnnlab("release", "optics", number, code=1)
    assert again.stderr == f"pnnlab: reservation {number} of optics has ended\n"
    shown = pnnlab("reserve", "optics", "--owner", "ann").stdout
    number = shown.split()[-1]
    assert shown == f"optics is reserved by ann, number {number}\n"
    assert client.system("optics")["status"]["reservation"]["ttl_s"] == 600
    assert pnnlab("release", "optics", number).stdout == "released optics\n"


def test_a_time_to_live_out_of_range_is_one_line(url):
    result = pnnlab("reserve", "optics", "--ttl", "0", code=1)
    assert result.stderr.startswith("pnnlab: ttl_s: ")
    assert result.stderr.count("\n") == 1


def test_holding_ends_with_ctrl_c(url, client, monkeypatch):
    seen = []

    def interrupted(held: HeldReservation) -> None:
        seen.append(client.system("optics")["status"]["reservation"])
        raise KeyboardInterrupt

    monkeypatch.setattr(HeldReservation, "wait", interrupted)
    result = pnnlab("reserve", "optics", "--hold", "--json")
    [held] = seen
    assert json.loads(result.stdout)["number"] == held["number"]
    assert (held["ttl_s"], result.stderr) == (30, "released optics\n")
    assert client.system("optics")["status"]["reservation"] is None


def test_holding_ends_with_an_error_when_the_reservation_is_lost(url, client, monkeypatch):
    monkeypatch.setattr("lab.held_reservation._BEATS_PER_TTL", 1e6)
    wait = HeldReservation.wait

    def lost(held: HeldReservation) -> None:
        client.release("optics", held.number)
        wait(held)

    monkeypatch.setattr(HeldReservation, "wait", lost)
    result = pnnlab("reserve", "optics", "--hold", code=1)
    assert "of optics has ended" in result.stderr
    assert "released" not in result.stderr


def test_recovering(url):
    assert pnnlab("recover", "optics").stdout == "optics is ok\n"
    assert json.loads(pnnlab("recover", "optics", "--json").stdout)["state"] == "ok"
    unknown = pnnlab("recover", "nope", code=1)
    assert unknown.stderr == "pnnlab: no system 'nope' (there are: optics)\n"


def test_recovering_a_faulted_system(reconfigured, tmp_path, serve_in_thread, faulty):
    app = create_app(reconfigured(recovery_attempts=0), data_dir=tmp_path)
    with serve_in_thread(app) as url, Client(url) as client:
        with faulty(), pytest.raises(Exception, match="no answer in 5 s"):
            client.measure("optics", [[0.5] * 50], [[0.0] * 50])
        assert "optics: faulted, " in pnnlab("queue", "--url", url).stdout
        assert pnnlab("recover", "optics", "--url", url).stdout == "optics is ok\n"
        assert client.system("optics")["status"]["state"] == "ok"


@pytest.mark.parametrize(
    ("deadline", "expected"),
    [
        ("600", None),
        ("2030-12-24T18:00", datetime(2030, 12, 24, 18).timestamp()),
        ("2030-12-24T18:00:00+00:00", 1924365600.0),
    ],
)
def test_a_deadline_is_seconds_from_now_or_a_time(url, client, deadline, expected):
    before = time.time()
    config = ("--task", "digits", "--epochs", "1", "--method", "in-silico")
    shown = pnnlab("submit", *config, "--deadline", deadline, "--json").stdout
    job = json.loads(shown)
    deadline_s = job["config"]["deadline_s"]
    if expected is None:
        assert before + 600 <= deadline_s <= time.time() + 600
    else:
        assert deadline_s == expected
    assert job["client"] == client_name()


@pytest.mark.parametrize("deadline", ["soon", "nan", "-5", "2030-13-01"])
def test_a_deadline_that_cannot_be_read_is_the_commands_fault(deadline):
    error = pnnlab("submit", f"--deadline={deadline}", code=2).stderr
    assert deadline in error
    assert "--deadline" in error


def test_stopping_everything_until_it_is_recovered(reconfigured, tmp_path, serve_in_thread):
    with serve_in_thread(create_app(reconfigured(), data_dir=tmp_path)) as url:
        shown = pnnlab("stop", "--url", url).stdout.splitlines()
        assert shown == ["optics: shaper: safe", "optics: spectrometer: safe"]
        [stopped] = json.loads(pnnlab("queue", "--json", "--url", url).stdout)
        assert json.loads(pnnlab("stop", "--json", "--url", url).stdout)["confirmed"]
        assert "optics: stopped" in pnnlab("queue", "--url", url).stdout
        assert stopped["waiting"] == 0
        assert pnnlab("recover", "optics", "--url", url).stdout == "optics is ok\n"


def test_a_stop_that_is_not_confirmed_fails(reconfigured, tmp_path, serve_in_thread, monkeypatch):
    def silent(_):
        raise InstrumentTimeout("shaper", "blockall: no answer within 2 s")

    with serve_in_thread(create_app(reconfigured(), data_dir=tmp_path)) as url:
        with monkeypatch.context() as patch:
            patch.setattr(WaveShaperA, "shutdown", silent)
            shown = pnnlab("stop", "--url", url, code=1).stdout
        assert "optics: shaper: blockall: no answer within 2 s" in shown
        assert "optics: spectrometer: safe" in shown

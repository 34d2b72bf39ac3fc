"""The command line, in process; `tests/e2e` runs it as a user does."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drivers.errors import ConnectionLost, InstrumentTimeout
from lab.config import TrainConfig
from lab.loopback import is_loopback
from server import serve as serve_module
from server.cli import app

BENCH = Path(__file__).parents[2] / "bench.toml"


def pnnlab(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def url(client, monkeypatch) -> str:
    monkeypatch.setenv("PNNLAB_URL", client.url)
    return client.url


def small(tmp_path: Path, job_body, **fields) -> str:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**job_body, **fields}))
    return str(path)


def test_submit_and_watch_shows_what_came_out(url, job_body, tmp_path):
    result = pnnlab("submit", "--config", small(tmp_path, job_body), "--watch")
    assert "succeeded" in result.stdout
    assert "accuracy on the device" in result.stdout
    assert "logistic regression" in result.stdout
    assert "trains" in result.stderr


def test_options_win_over_the_config_file_part_by_part(url, client, job_body, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('method = "pat"\nseed = 1\n[twin]\nkind = "neural"\nrows = 20\n')
    result = pnnlab(
        *("submit", "--config", str(path), "--json", "--seed", "2", "--twin-rows", "21"),
        *("--layers", "1", "--priority", "0"),
    )
    job = json.loads(result.stdout)
    assert TrainConfig.model_validate(job["config"]) == TrainConfig.model_validate(
        {
            "method": "pat",
            "seed": 2,
            "twin": {"kind": "neural", "rows": 21},
            "network": {"layers": 1},
        }
    )


def test_jobs_watch_and_cancel(url, job_body, tmp_path):
    config = small(tmp_path, job_body, epochs=10_000)
    job = json.loads(pnnlab("submit", "--config", config, "--json").stdout)["id"]
    assert job in pnnlab("jobs").stdout
    cancelled = json.loads(pnnlab("cancel", job, "--json").stdout)
    assert cancelled["id"] == job
    lines = pnnlab("watch", job, "--json", code=1).stdout.splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], last["data"]["state"]) == ("end", "cancelled")
    assert f"job {job} cancelled: cancelled by request" in pnnlab("watch", job, code=1).stdout
    [listed] = json.loads(pnnlab("jobs", "--json", "--state", "cancelled").stdout)
    assert listed["id"] == job
    again = pnnlab("cancel", job, code=1)
    assert again.stderr == f"pnnlab: job {job} cannot be cancelled: it is cancelled\n"


def test_a_job_is_submitted_once_by_its_key_and_found_by_its_tag(url, job_body, tmp_path):
    config = small(tmp_path, job_body, epochs=10_000)
    submit = ("submit", "--config", config, "--json", "--key", "night", "--tag", "a", "--tag", "b")
    first, second = (json.loads(pnnlab(*submit).stdout) for _ in range(2))
    assert first["id"] == second["id"]
    assert first["tags"] == ["a", "b"]
    assert first["id"] in pnnlab("jobs", "--tag", "b").stdout
    assert pnnlab("jobs", "--tag", "c").stdout == ""
    pnnlab("cancel", first["id"])


def test_a_job_is_paused_continued_with_changes_and_cancelled(url, client, job_body, tmp_path):
    config = small(tmp_path, job_body, epochs=10_000)
    job = json.loads(pnnlab("submit", "--config", config, "--json").stdout)["id"]
    pnnlab("jobs", "pause", job)
    events = client.watch(job)
    assert any(e.kind == "state" and e.data["state"] == "paused" for e in events)
    assert "it is paused" in pnnlab("jobs", "pause", job, code=1).stderr
    changed = pnnlab("jobs", "continue", job, "--priority", "5", "--epochs", "9999", "--json")
    config = json.loads(changed.stdout)["config"]
    assert (config["priority"], config["epochs"]) == (5, 9999)
    told = pnnlab("jobs", "cancel", job, "--at-once").stdout
    assert "cancelled" in told
    assert "in flight" not in told  # it is broken off
    pnnlab("watch", job, code=1)


def test_a_job_is_shown_with_its_provenance_and_run_again(url, client, job_body, tmp_path):
    config = small(tmp_path, job_body)
    job = json.loads(pnnlab("submit", "--config", config, "--json", "--tag", "a").stdout)["id"]
    pnnlab("watch", job)
    shown = pnnlab("jobs", "show", job).stdout.splitlines()
    assert shown[0].split() == ["job", job, "train", "succeeded"]
    assert any(line.startswith("attempt        1, run 1, on local") for line in shown)
    found = json.loads(pnnlab("jobs", "show", job, "--json").stdout)
    assert found["provenance"] == client.provenance(job)
    assert found["provenance"]["config"] == found["config"]

    told = pnnlab("jobs", "rerun", job, "--key", "k", "--watch").stdout.splitlines()
    again = json.loads(pnnlab("jobs", "rerun", job, "--key", "k", "--json").stdout)
    assert told[0] == f"job {again['job']['id']} is pending, the same as {job}"
    assert again["differences"] == []
    assert f"(rerun of {job})" in pnnlab("jobs").stdout
    assert (again["job"]["origin"], again["job"]["tags"]) == (f"rerun of {job}", ["a"])
    results = [client.result(j)["test_accuracy"] for j in (job, again["job"]["id"])]
    assert results[0] == results[1]


def test_a_job_that_has_not_started_is_shown_without_provenance(url, client, job_body):
    ids = [client.submit(job_body, epochs=10_000, seed=seed)["id"] for seed in range(3)]
    found = json.loads(pnnlab("jobs", "show", ids[-1], "--json").stdout)
    assert (found["state"], found["provenance"]) == ("pending", None)
    assert "packages" not in pnnlab("jobs", "show", ids[-1]).stdout
    for job in reversed(ids):
        client.cancel(job, at_once=True)
    assert "no job 'nope'" in pnnlab("jobs", "rerun", "nope", code=1).stderr


def test_options_of_the_list_are_not_taken_for_another_commands(url):
    told = pnnlab("jobs", "--url", "http://127.0.0.1:9", "pause", "nope", code=2).stderr
    assert "it comes after 'pause'" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("watch", "nope"), "no job 'nope'"),
        (("submit", "--epochs", "0"), "epochs: Input should be greater than or equal to 1"),
        (("submit", "--config", "none.json"), "none.json: cannot be read"),
        (("submit", "--system", "nope"), "no system 'nope' (there are: optics)"),
    ],
)
def test_an_error_is_one_line(url, arguments, says):
    result = pnnlab(*arguments, code=1)
    assert result.stderr.startswith(f"pnnlab: {says}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("content", ["{", "[1]", "\udcff"])
def test_a_config_file_that_cannot_be_used_is_named(tmp_path, content):
    path = tmp_path / "job.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert str(path) in pnnlab("submit", "--config", str(path), code=1).stderr


def test_a_service_that_is_not_there_is_one_line():
    result = pnnlab("jobs", "--url", "http://127.0.0.1:9", code=1)
    assert result.stderr.startswith("pnnlab: no answer from http://127.0.0.1:9")


def test_a_wrong_option_is_the_commands_fault():
    assert "No such option" in pnnlab("jobs", "--nope", code=2).stderr


@pytest.mark.parametrize("command", ["serve", "check"])
def test_without_a_bench_file_the_commands_say_so(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    result = pnnlab(command, code=1)
    assert result.stderr.startswith("pnnlab: no bench file: there is no bench.toml in this folder")


def test_instruments_that_are_not_safe_at_the_end_of_a_service_are_one_line(tmp_path, monkeypatch):
    def served(*_):
        errors = [InstrumentTimeout("shaper", "no answer"), ConnectionLost("osa", "closed")]
        raise ExceptionGroup("safe state not confirmed", errors)

    monkeypatch.setattr("server.serve.serve", served)
    data = str(tmp_path / "data")
    said = pnnlab("serve", "--bench", str(BENCH), "--data", data, code=1).stderr
    assert said == "pnnlab: safe state not confirmed: shaper: no answer; osa: closed\n"


def test_an_address_that_others_reach_needs_a_secret_or_consent(tmp_path, monkeypatch):
    hosts = []
    monkeypatch.setattr(
        serve_module, "serve", lambda app, host, port, *_: hosts.append((host, port))
    )
    plain = ("serve", "--bench", str(BENCH), "--data", str(tmp_path))
    everywhere = (*plain, "--host", "0.0.0.0")
    quiet = pnnlab(*plain)
    refused = pnnlab(*everywhere, code=1)
    assert hosts == [("127.0.0.1", 8000)]
    assert quiet.stderr == ""
    reachable = "0.0.0.0 is reachable from other machines, and without PNNLAB_SECRET"
    assert refused.stderr.startswith(f"pnnlab: {reachable}")
    assert refused.stderr.endswith("--insecure\n")
    loud = pnnlab(*everywhere, "--insecure")
    assert loud.stderr.startswith(f"pnnlab: warning: {reachable}")
    monkeypatch.setenv("PNNLAB_SECRET", "a secret that is too spacious")
    assert "without spaces" in pnnlab(*everywhere, code=1).stderr
    monkeypatch.setenv("PNNLAB_SECRET", "s" * 16)
    assert pnnlab(*everywhere).stderr == ""
    assert hosts == [("127.0.0.1", 8000), ("0.0.0.0", 8000), ("0.0.0.0", 8000)]


@pytest.mark.parametrize("words", [("serve", "--bench", str(BENCH)), ("worker",)])
def test_a_file_is_no_database_that_several_machines_share(tmp_path, monkeypatch, words):
    url = f"sqlite:///{tmp_path}/x.db"
    folder = ("--data", str(tmp_path / "data"))
    refused = pnnlab(*words, *folder, "--database", url, code=2)
    monkeypatch.setenv("PNNLAB_DATABASE_URL", url)
    for run in (refused, pnnlab(*words, *folder, code=2)):
        said = " ".join(run.stderr.replace("\u2502", " ").split())
        assert "Invalid value for '--database'" in said
        assert "a file of SQLite in the folder --data" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("lab.example", False),
        ("127.0.0.1.lab.example", False),
        ("", False),
    ],
)
def test_what_is_loopback(host, local):
    assert is_loopback(host) is local

"""The command `pnnlab mock` in process: what it refuses; `tests/e2e/test_mock.py` lets it run."""

import re
import socket
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from documentation import ROOT
from drivers.mock.serve import sockets
from drivers.mock.serve.sockets import Served
from server.bench_file import as_toml
from server.cli import app

BENCH = ROOT / "bench.toml"


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, ["mock", *words])
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def changed(folder: Path, before: str, after: str) -> str:
    text = BENCH.read_text()
    assert before in text
    path = folder / "changed.toml"
    path.write_text(text.replace(before, after))
    return str(path)


def test_a_bench_with_nothing_simulated(tmp_path):
    real = '[instruments.a]\ndriver = "WaveShaperA"\naddress = "http://192.168.1.20"\n'
    path = tmp_path / "real.toml"
    path.write_text(f'name = "real"\n{real}[systems]\n')
    assert "real.toml: there is nothing to serve" in refused("--bench", str(path))


def test_a_rig_that_is_served_elsewhere():
    told = refused("--bench", str(ROOT / "bench-compose.toml"))
    assert "rigs.optics.admin: this rig is served at http://bench:9000" in told


def test_an_instrument_that_its_rig_does_not_have(tmp_path):
    path = changed(tmp_path, "mock://optics/spectrometer", "mock://optics/scope")
    assert "mock://optics/scope: no such instrument" in refused("--bench", path)


def test_a_plant_that_there_is_not(tmp_path):
    path = changed(tmp_path, 'plant = "optics"', 'plant = "sound"')
    assert "rigs.optics.plant: no plant 'sound'" in refused("--bench", path)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = refused("--bench", str(BENCH), "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}: " in told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("faults = 3", r"a list \[\[faults\]\] is needed"),
        ("", r"a list \[\[faults\]\] is needed"),
        ("faults = [3]", "faults, number 1: "),
        ("[[faults]]\nfault = 'drop'", "faults, number 1: fault: instrument: a text is needed"),
        ("[[faults]]\nrig = 'x'", r"number 1: no rig 'x' \(there are: optics\)"),
        (
            "[[faults]]\nfault = 'drop'\ninstrument = 'shaper'\n"
            "[[faults]]\nfault = 'stuck'\ninstrument = 'shaper'",
            "number 2: 'shaper' reads nothing",
        ),
    ],
)
def test_a_fault_file_that_means_nothing(tmp_path, text, named):
    path = tmp_path / "faults.toml"
    path.write_text(text)
    told = refused("--bench", str(BENCH), "--faults", str(path))
    assert "faults.toml: " in told
    assert re.search(named, told)


@pytest.fixture
def ready_at_once(monkeypatch):
    """Let the command be told that all is ready, and end."""

    def serve(rigs, addresses, *, host, port, on_ready):
        on_ready(Served("http://lab:9000", dict.fromkeys(addresses, "http://lab:9001")))

    monkeypatch.setattr(sockets, "serve", serve)


def test_other_machines_are_warned_of(ready_at_once):
    result = CliRunner().invoke(app, ["mock", "--bench", str(BENCH), "--host", "0.0.0.0"])
    assert result.exit_code == 0
    assert "0.0.0.0 is reachable from other machines" in result.stderr


def test_a_folder_that_is_not_there_cannot_be_written_to(ready_at_once, tmp_path):
    path = str(tmp_path / "nowhere" / "client.toml")
    told = refused("--bench", str(BENCH), "--write", path)
    assert "client.toml: cannot be written (No such file or directory)" in told


# --- the file that it writes ----------------------------------------------------------------------

VALUES = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab. \"'é"), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text('ab-_. "é', max_size=4), VALUES, max_size=4))
def test_a_written_file_reads_back_as_it_was(data):
    assert tomllib.loads(as_toml(data)) == data


def test_what_is_not_set_is_left_out():
    assert as_toml({"a": None, "b": {"c": None, "d": 1}}) == "[b]\nd = 1\n"

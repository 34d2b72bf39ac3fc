"""`pnnlab check`: bring-up, dry run and recording on the command line."""

import json
import re
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from documentation import blocks
from drivers.errors import InstrumentTimeout
from drivers.shapers.waveshaper import WaveShaperA
from drivers.spectrometers.yokogawa import YokogawaAQ6370
from drivers.wires.recording import load_recording
from lab.bench_config import load_bench
from lab.guard import guarded_instruments
from server.check import check_bench
from server.cli import app

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench.toml"
KEYS = ["check", "system", "instrument", "ok", "detail", "value", "unit", "low", "high"]


def pnnlab(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def real_bench(tmp_path) -> Path:
    """Return the optical bench with real addresses."""
    text = BENCH.read_text()
    text = re.sub(r"\[rigs\.optics\].*?(?=\[instr)", "", text, flags=re.DOTALL)
    text = text.replace("mock://optics/shaper", "http://192.168.1.20")
    text = text.replace("mock://optics/spectrometer", "TCPIP0::192.168.1.21::10001::SOCKET")
    text = text.replace("WaveShaper (1000|4000)A", "SN204711")
    path = tmp_path / "real.toml"
    path.write_text(text)
    return path


def replayed(bench: Path, session: Path, folder: Path) -> Path:
    text = re.sub(r"mock://\w+/(\w+)", rf"replay://{session}#\1", bench.read_text())
    path = folder / "replayed.toml"
    path.write_text(text.replace("#audio", "#sound"))
    return path


# --- bring-up ---------------------------------------------------------------------------------


def test_every_line_has_its_verdict_and_every_number_its_unit_and_limit():
    lines = pnnlab("check", "--bench", str(BENCH)).stdout.splitlines()
    assert all(line.startswith("pass  optics") for line in lines)
    assert "WaveShaper 1000A SN201204" in lines[0]
    assert "YOKOGAWA" in lines[1]
    numbers = [line for line in lines if " (at most " in line or " (1 to 100)" in line]
    assert [line.split(": ")[1] for line in numbers] == [
        *("reference", "noise", "saturated", "row-time", "dark", "dark-noise"),
    ]
    assert re.search(r"reference: [\d.]+ % of full scale \(1 to 100\); peak .* W", numbers[0])
    assert re.search(r"row-time: [\d.]+ ms \(at most 1125\); .*declared 750 ms", numbers[3])
    assert lines[-1] == "pass  optics: safe-state: confirmed by every instrument"


@pytest.mark.parametrize("bench", ["bench.toml", "bench-circuit.toml", "bench-plate.toml"])
def test_json_has_the_same_keys_for_every_check(bench):
    report = json.loads(pnnlab("check", "--bench", str(ROOT / bench), "--json").stdout)
    assert list(report) == ["bench", "ok", "checks"]
    assert report["ok"]
    assert all(list(check) == KEYS for check in report["checks"])


def test_check_says_what_fails_and_still_leaves_the_bench_safe(monkeypatch):
    def time_out(spectrometer) -> None:
        raise InstrumentTimeout(spectrometer.name, "no answer in 5 s")

    safe: list[str] = []
    shutdown = WaveShaperA.shutdown
    monkeypatch.setattr(YokogawaAQ6370, "measure", time_out)
    monkeypatch.setattr(
        WaveShaperA, "shutdown", lambda shaper: (safe.append(shaper.name), shutdown(shaper))[1]
    )
    lines = pnnlab("check", "--bench", str(BENCH), code=1).stdout.splitlines()
    assert "FAIL  optics: reference: spectrometer: no answer in 5 s" in lines
    assert "pass  optics: safe-state: confirmed by every instrument" in lines
    assert safe


def test_check_says_why_a_safe_state_is_not_confirmed(monkeypatch):
    # at the start it works; then when it is checked and once more before all is closed it does not
    fails = iter([False, True, True])

    def shutdown(shaper) -> None:
        if next(fails, False):
            raise InstrumentTimeout(shaper.name, "no answer\nin 5 s")

    monkeypatch.setattr(WaveShaperA, "shutdown", shutdown)
    lines = pnnlab("check", "--bench", str(BENCH), code=1).stdout.splitlines()
    reason = "optics: safe state not confirmed: shaper: no answer in 5 s"
    assert f"FAIL  optics: safe-state: {reason}" in lines
    assert "FAIL  optics-simulated: bench: shaper: no answer in 5 s" in lines


def test_check_of_a_bench_that_is_switched_off_names_all_that_do_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.bench.launch_guard", lambda *_: None)
    text = BENCH.read_text().replace("mock://optics/shaper", "http://127.0.0.1:9")
    bench = tmp_path / "bench.toml"
    bench.write_text(text.replace("mock://optics/spectrometer", "TCPIP0::127.0.0.1::9::SOCKET"))
    [line] = pnnlab("check", "--bench", str(bench), code=1).stdout.splitlines()
    opened, closed = line.split("; safe state not confirmed: ")
    assert opened.startswith("FAIL  optics-simulated: bench: ")
    assert "TCPIP0::127.0.0.1::9::SOCKET: cannot be opened" in opened
    assert closed.startswith("shaper: blockall: 127.0.0.1:9: ")


def test_a_check_that_is_cut_short_leaves_the_bench_safe(tmp_path):
    session = tmp_path / "session.jsonl"
    config = load_bench(BENCH).model_copy(update={"record": str(session)})
    checks = check_bench(config)
    while next(checks).check != "reference":  # the light is on
        pass
    checks.close()  # as an interrupt does
    sent = [event.data for _, event in load_recording(session)["shaper"] if event.what == "sent"]
    assert b'"wsp"' in sent[-2]
    assert sent[-1] == b'{"type":"blockall","port":1}'


def test_check_of_a_stranger_fails(tmp_path):
    bench = tmp_path / "bench.toml"
    bench.write_text(BENCH.read_text().replace("YOKOGAWA,AQ6370", "ACME,1000"))
    output = pnnlab("check", "--bench", str(bench), code=1).stdout
    assert "FAIL  optics/spectrometer: identity: " in output
    assert "not /ACME,1000/" in output


# --- dry run ----------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a dry run must not open sockets")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_dry_run_opens_no_connection_and_says_so(real_bench, no_network):
    output = pnnlab("check", "--dry-run", "--bench", str(real_bench)).stdout
    first, *lines, last = output.splitlines()
    assert first.startswith("dry run: no connection is opened; simulated counterparts answer")
    assert re.fullmatch(r"dry run: \d+ commands, none sent", last)
    for line in (
        "  shaper: (connect to http://192.168.1.20)",
        "  spectrometer: (connect to TCPIP0::192.168.1.21::10001::SOCKET)",
        '  spectrometer: OPEN "anonymous"',
        "  spectrometer: (a password, not shown)",
        "  spectrometer: :SENSe:WAVelength:STARt 7.73365e-07",
        "  spectrometer: :INITiate:IMMediate",
        '  shaper: POST /waveshaper/loadprofile {"type":"blockall","port":1}',
        "  ... 16 times in all",
    ):
        assert line in lines
    assert "  spectrometer: CLOSE" in lines  # on closing, too
    assert all(len(line) < 130 for line in lines)
    (profile,) = {line[-13:] for line in lines if "192.9150\\t0.0000" in line}
    assert profile == "(29023 bytes)"


def test_what_is_printed_is_what_would_be_sent(tmp_path):
    """The commands of a dry run are those of the same session in a recording."""
    session = tmp_path / "session.jsonl"
    pnnlab("check", "--bench", str(BENCH), "--record", str(session))
    events = [json.loads(line) for line in session.read_text().splitlines()[1:-1]]
    sent = [event for event in events if event["what"] in ("opened", "sent")]
    shown = json.loads(pnnlab("check", "--bench", str(BENCH), "--dry-run", "--json").stdout)
    assert list(shown) == ["bench", "dry_run", "ok", "commands"]
    for name in ("shaper", "spectrometer"):  # each in its order; they are closed in parallel
        recorded = [event.get("text", "") for event in sent if event["instrument"] == name]
        commands = [c for c in shown["commands"] if c["instrument"] == name]
        assert len(commands) > 30
        assert [c["bytes"] for c in commands] == [len(text) for text in recorded]
    plain = [(c["command"], t.strip()) for c, t in zip(commands, recorded, strict=True) if t]
    assert len(plain) > 100
    assert all(command == text for command, text in plain)


@pytest.mark.parametrize("bench", ["bench-circuit.toml", "bench-plate.toml"])
def test_a_dry_run_of_the_other_benches(bench, no_network):
    lines = pnnlab("check", "--dry-run", "--bench", str(ROOT / bench)).stdout.splitlines()
    assert any(re.search(r"(a_out_scan|exchange) .* \(\d+ bytes\)", line) for line in lines)


def test_a_dry_run_says_what_keeps_it_from_its_end(real_bench):
    text = real_bench.read_text()
    real_bench.write_text(text.replace("port = 1", "port = 4\n"))
    output = pnnlab("check", "--dry-run", "--bench", str(real_bench), code=1).stdout
    assert "  stops here, by the simulated counterpart: shaper: port: 4 is outside" in output


def test_a_dry_run_records_nothing(real_bench, tmp_path):
    options = ("--dry-run", "--record", str(tmp_path / "session.jsonl"))
    result = pnnlab("check", "--bench", str(real_bench), *options, code=2)
    assert "a dry run has no session to record" in result.stderr
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_dry_run_in_the_documentation_is_what_is_printed(tmp_path):
    (bench,) = blocks("how-to.md", "toml", "Go to a real bench")
    path = tmp_path / "my-bench.toml"
    path.write_text(bench)
    printed = iter(pnnlab("check", "--dry-run", "--bench", str(path)).stdout.splitlines())
    (shown,) = blocks("how-to.md", "text", "Check a bench")
    for part in shown.split("  [...]\n"):
        first, *rest = part.splitlines()
        assert first in printed  # skips what the page leaves out
        assert [next(printed) for _ in rest] == rest
    assert not list(printed)


# --- recording --------------------------------------------------------------------------------


@pytest.mark.parametrize("bench", ["bench.toml", "bench-circuit.toml", "bench-plate.toml"])
def test_a_recorded_check_is_replayed_with_the_same_numbers(bench, tmp_path):
    session = tmp_path / "session.jsonl"
    bench = ROOT / bench
    one = pnnlab("check", "--bench", str(bench), "--record", str(session), "--json").stdout
    copy = replayed(bench, session, tmp_path)
    two = pnnlab("check", "--bench", str(copy), "--json").stdout
    assert not guarded_instruments(load_bench(copy))  # nothing there outlives the process
    checks = [
        [c for c in json.loads(text)["checks"] if c["check"] != "row-time"] for text in (one, two)
    ]
    assert checks[0] == checks[1]


def test_another_bench_than_the_recorded_one_is_told(tmp_path):
    session = tmp_path / "session.jsonl"
    pnnlab("check", "--bench", str(BENCH), "--record", str(session))
    copy = replayed(BENCH, session, tmp_path)
    copy.write_text(copy.read_text().replace("start_nm = 773.365", "start_nm = 773.4"))
    output = pnnlab("check", "--bench", str(copy), code=1).stdout
    assert (
        "expected :SENSe:WAVelength:STARt 7.73365e-07, but :SENSe:WAVelength:STARt 7.734e-07"
        in (output)
    )


def test_a_check_that_fails_is_recorded_whole(tmp_path):
    session = tmp_path / "session.jsonl"
    bench = tmp_path / "bench.toml"
    bench.write_text(BENCH.read_text().replace("YOKOGAWA,AQ6370", "ACME,1000"))
    one = pnnlab("check", "--bench", str(bench), "--record", str(session), code=1).stdout
    copy = replayed(bench, session, tmp_path)
    assert pnnlab("check", "--bench", str(copy), code=1).stdout == one


def test_the_bench_file_may_ask_for_a_recording(tmp_path):
    session = tmp_path / "session.jsonl"
    bench = tmp_path / "bench.toml"
    bench.write_text(f'record = "{session}"\n{BENCH.read_text()}')
    pnnlab("check", "--bench", str(bench))
    assert {"shaper", "spectrometer"} == load_recording(session).keys()


def test_a_recording_is_not_overwritten(tmp_path):
    session = tmp_path / "session.jsonl"
    session.write_text("mine")
    result = pnnlab("check", "--bench", str(BENCH), "--record", str(session), code=1)
    assert f"record: {session} is there already; not overwritten" in result.stderr
    assert session.read_text() == "mine"


def test_a_folder_that_is_not_there(tmp_path):
    session = tmp_path / "nowhere" / "session.jsonl"
    result = pnnlab("check", "--bench", str(BENCH), "--record", str(session), code=1)
    assert "No such file" in result.stderr

"""Recordings: what stands in the file, and what happens to one that is cut off."""

import json
import logging
import resource

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from documentation import blocks
from drivers.wires.recording import Recorder, load_recording
from drivers.wires.tap import Event, shortened

SECRET = Event("sent", secret=True)
TALK = [
    Event("opened"),
    Event("sent", data=b"*IDN?\r\n"),
    Event("received", data=b"YOKOGAWA,AQ6370D\r\n"),
    SECRET,
    Event("sent", "POST /waveshaper/loadprofile", b'{"type":"blockall","port":1}'),
    Event("received", "200 application/json", b"\xff\x00\n"),
    Event("failed", "timeout", b"no answer"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "session.jsonl"


def record(path, events, instrument="osa"):
    with Recorder(path, "bench") as recorder:
        tap = recorder.tap(instrument)
        for event in events:
            tap(event)


def loaded(path, instrument="osa"):
    return [event for _, event in load_recording(path).get(instrument, [])]


def test_a_person_can_read_it(path):
    record(path, TALK)
    first, *events, last = (json.loads(line) for line in path.read_text().splitlines())
    assert first["pnnlab_session"] == 1
    assert first["bench"] == "bench"
    assert last == {"ended": True, "events": 7}
    assert all(event.pop("at_s") >= 0 for event in events)
    assert all(event.pop("instrument") == "osa" for event in events)
    assert events == [
        {"what": "opened"},
        {"what": "sent", "text": "*IDN?\r\n"},
        {"what": "received", "text": "YOKOGAWA,AQ6370D\r\n"},
        {"what": "sent", "secret": True},
        {
            "what": "sent",
            "head": "POST /waveshaper/loadprofile",
            "text": '{"type":"blockall","port":1}',
        },
        {"what": "received", "head": "200 application/json", "base64": "/wAK"},
        {"what": "failed", "head": "timeout", "text": "no answer"},
    ]


def test_the_line_in_the_documentation_is_one(path):
    (line,) = blocks("how-to.md", "json", "Record and replay a session")
    path.write_text(f'{{"pnnlab_session": 1}}\n{line}{{"ended": true, "events": 1}}\n')
    assert loaded(path, "spectrometer") == [Event("sent", data=b"*IDN?\r\n")]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=200)), max_size=10))
def test_any_bytes_come_back_as_they_were(path, talk):
    events = [Event("sent", head, data) for head, data in talk]
    path.unlink(missing_ok=True)
    record(path, events)
    assert loaded(path) == events


@pytest.mark.parametrize("byte", [b"\x00", b"\xfe"])
def test_long_arrays_are_compressed(path, byte):
    data = byte * 1_000_000
    record(path, [Event("sent", "exchange", data)])
    assert path.stat().st_size < 10_000
    assert loaded(path) == [Event("sent", "exchange", data)]


def test_each_instrument_has_its_own_part_in_the_order_of_its_events(path):
    with Recorder(path, "bench") as recorder:
        one, two = recorder.tap("one"), recorder.tap("two")
        for i in range(3):
            one(Event("sent", data=b"1%d" % i))
            two(Event("sent", data=b"2%d" % i))
    assert [event.data for event in loaded(path, "one")] == [b"10", b"11", b"12"]
    assert [number for number, _ in load_recording(path)["two"]] == [3, 5, 7]


def test_a_recording_that_is_cut_off_anywhere_is_refused(path, tmp_path):
    record(path, TALK)
    whole = path.read_bytes()
    part = tmp_path / "part.jsonl"
    for length in range(len(whole) - 1):  # without its last line end it is still whole
        part.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"part\.jsonl: (cut off|line \d+ is cut off|no rec)"):
            load_recording(part)


def test_a_line_that_is_missing_in_the_middle_is_noticed(path):
    record(path, TALK)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(ValueError, match="cut off"):
        load_recording(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"instrument": "osa", "what": "sung"}', "line 2 is no event .*sung"),
        ('{"what": "sent"}', "line 2 is no event .*instrument"),
        ('{"instrument": "osa", "what": "sent", "base64": "!"}', "line 2 is no event"),
        ('{"instrument": "osa", "what": "sent", "zlib": "AAAA"}', "line 2 is no event"),
        ("[1]", "line 2 is no JSON object"),
        ("{", "line 2 is cut off or no JSON"),
    ],
)
def test_a_line_that_is_no_event_is_named(path, line, why):
    path.write_text(f'{{"pnnlab_session": 1}}\n{line}\n{{"ended": true, "events": 1}}\n')
    with pytest.raises(ValueError, match=why):
        load_recording(path)


@pytest.mark.parametrize("content", ["", "{}\n", '{"pnnlab_session": 2}\n'])
def test_another_file_is_no_recording(path, content):
    path.write_text(content)
    with pytest.raises(ValueError, match=r"session\.jsonl: no recorded session of version 1"):
        load_recording(path)


def test_a_file_that_is_not_there(path):
    with pytest.raises(ValueError, match=r"session\.jsonl: cannot be read"):
        load_recording(path)


def test_recordings_are_not_overwritten(path):
    record(path, TALK)
    with pytest.raises(FileExistsError):
        Recorder(path, "bench")
    assert loaded(path) == TALK


def test_a_full_disk_ends_the_recording_and_not_the_session(path, caplog):
    with Recorder(path, "bench") as recorder:
        tap = recorder.tap("osa")
        tap(Event("opened"))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        try:
            with caplog.at_level(logging.ERROR):
                tap(Event("sent", data=b"*IDN?\r\n"))
                tap(Event("sent", data=b"*IDN?\r\n"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [record.message for record in caplog.records] == [
        f"{path}: the recording ends here: [Errno 27] File too large"
    ]
    with pytest.raises(ValueError, match="cut off"):
        load_recording(path)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"", ""),
        (b"*IDN?\r\n", "*IDN?"),
        (b"a\tb\nc\n", r"a\tb\nc"),
        (b"x" * 72, "x" * 72),
        (b"x" * 73, "x" * 72 + "... (73 bytes)"),
        (b"#15\x00\x01\x02\x03\x04", "#15... (8 bytes)"),
        (b"\x00\x01", "(2 bytes)"),
    ],
)
def test_payloads_are_shortened_to_one_line(data, shown):
    assert shortened(data) == shown


def test_a_password_is_not_shown():
    assert str(SECRET) == "(a password, not shown)"

"""Red Pitaya STEMlab 125-14: exact messages, rows in a table, marks, limits, faults, safe state."""

import struct
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymeasure.test import expected_protocol

from drivers.circuits.redpitaya import RedPitayaDAQ
from drivers.circuits.redpitaya_table import LENGTH, RowTable, first_mark, steps, table_text
from drivers.errors import (
    Aborted,
    ConnectionLost,
    IdentityError,
    InstrumentRefused,
    InstrumentTimeout,
    LimitError,
    ProtocolError,
)
from drivers.mock.faults import Fault
from drivers.mock.firmware.bounds import Bounds
from drivers.mock.firmware.redpitaya import RedPitayaFirmware
from drivers.mock.physics.circuit import CircuitPlant
from drivers.mock.rig import circuit_rig
from drivers.mock.visa import FirmwareAdapter
from drivers.transport import open_visa

IDENTITY = "REDPITAYA,INSTR2025,,01-21"
NO_ERROR = ("SYST:ERR:NEXT?", '0,"No error"')
ROW, GAP = 4, 7000  # two rows in a table
LAG = 3  # of the recording behind the table, samples


def protocol(pairs, **settings):
    settings = {"name": "rp", "samples": ROW, "gap_samples": GAP, **settings}
    return expected_protocol(RedPitayaDAQ, pairs, **settings)


def texts(*rows):
    """Return a table of rows as it goes over the wire, in the plainest way."""
    words = ["0"] * LENGTH
    for i, row in enumerate(rows):
        at = 16 + i * (ROW + GAP)
        words[at : at + ROW] = row
    return ",".join(words)


def recording(*rows, samples=LENGTH, lag=LAG):
    """Return the block that answers for a recording of rows of codes."""
    codes = np.zeros(LENGTH, dtype=">i2")
    for i, row in enumerate(rows):
        at = 16 + lag + i * (ROW + GAP)
        codes[at : at + ROW] = row
    data = codes[:samples].tobytes()
    return b"#%d%d" % (len(str(len(data))), len(data)) + data + b"\r\n"


MARKED = [4096] * ROW
MARK_WORDS = ["0.5"] * ROW
PLAY = [
    ("ACQ:START", None),
    ("ACQ:TRIG AWG_PE", None),
    ("OUTPUT:STATE ON", None),
    ("SOUR:TRIG:INT", None),
    ("ACQ:TRIG:STAT?", "WAIT"),
    ("ACQ:TRIG:STAT?", "TD"),
    ("ACQ:TRIG:FILL?", "0"),
    ("ACQ:TRIG:FILL?", "1"),
]
SAFE = [("*CLS", None), ("OUTPUT:STATE OFF", None), ("GEN:RST", None), ("ACQ:STOP", None)]
OFF = [("OUTPUT1:STATE?", "OFF"), ("OUTPUT2:STATE?", "OFF")]
OUTPUT = [
    ("FUNC", "ARBITRARY", "ARBITRARY"),
    ("FREQ:FIX", "61.0351562", "61.0352"),
    ("VOLT:OFFS", "0", "0"),
    ("VOLT", "1", "1"),
    ("BURS:STAT", "BURST", "BURST"),
    ("BURS:NCYC", "1", "1"),
    ("BURS:NOR", "1", "1"),
]
SETTINGS = [
    ("ACQ:DEC:F", "125", "125"),
    ("ACQ:AVG", "ON", "ON"),
    ("ACQ:TRIG:DLY", "8192", "8192"),
    ("ACQ:DATA:UNITS", "RAW", "RAW"),
    ("ACQ:SOUR1:GAIN", "LV", "LV"),
    ("ACQ:SOUR2:GAIN", "LV", "LV"),
    *((f"SOUR{i}:{header}", value, answer) for i in (1, 2) for header, value, answer in OUTPUT),
]
TEST = [
    (f"SOUR2:TRAC:DATA:DATA {texts(MARK_WORDS, MARK_WORDS)}", None),
    (f"SOUR1:TRAC:DATA:DATA {texts()}", None),
    *PLAY,
    ("ACQ:SOUR2:DATA?", recording(MARKED, MARKED)),
    NO_ERROR,
]


def start(settings=SETTINGS, test=TEST):
    return [
        ("*IDN?", IDENTITY),
        *SAFE,
        ("ACQ:RST", None),
        ("ACQ:DATA:FORMAT BIN", None),
        *[(f"{header} {value}", None) for header, value, _ in settings],
        NO_ERROR,
        *[(f"{header}?", answer) for header, _, answer in settings],
        *test,
        ("OUTPUT:STATE OFF", None),
        *OFF,
    ]


def shot(words, codes):
    return [
        (f"SOUR1:TRAC:DATA:DATA {texts(*words)}", None),
        *PLAY,
        ("ACQ:SOUR1:DATA?", recording(*codes)),
        NO_ERROR,
        ("ACQ:SOUR2:DATA:OLD:N? 64", recording(MARKED, samples=64)),
    ]


def test_start_sends_exactly_these_messages():
    with protocol(start(), expect_idn="REDPITAYA") as daq:
        daq.start()


def test_a_shot_is_exactly_these_messages():
    words = [["1", "-1", "0.5", "-0.00012"], ["0", "0.00012", "-0.5", "0.99988"]]
    codes = [[-8192, 8191, 1, -1], [0, 4096, -4096, 256]]
    pairs = [*start(), *shot(words, codes), ("OUTPUT:STATE OFF", None)]
    with protocol(pairs, amplifier_gain=5.0, probe_attenuation=2.0) as daq:
        daq.start()
        step = 5 / 8192
        response = daq.acquire([[5, -5, 2.5, -step], [0, step, -2.5, 5 - step]])
    assert response.tolist() == [
        [-2, 2, 2 / 8192, -2 / 8192],
        [0, 1, -1, 256 * 2 / 8192],
    ]


def test_fewer_rows_have_marks_of_their_own():
    marks = (f"SOUR2:TRAC:DATA:DATA {texts(MARK_WORDS)}", None)
    one = shot([["0"] * ROW], [[1, 2, 3, 4]])
    off = ("OUTPUT:STATE OFF", None)
    with protocol([*start(), marks, *one, off, *one, off]) as daq:
        daq.start()
        for _ in range(2):
            assert (daq.acquire(np.zeros((1, ROW))) * 8192).tolist() == [[1, 2, 3, 4]]


def test_shutdown_sends_exactly_these_messages():
    with protocol([*SAFE, *OFF, NO_ERROR]) as daq:
        daq.shutdown()


def test_the_wrong_identity_stops_before_any_setting():
    with (
        protocol([("*IDN?", "REDPITAYA,Z20,,1")], expect_idn="INSTR") as daq,
        pytest.raises(IdentityError, match="rp: 'REDPITAYA,Z20,,1' answers"),
    ):
        daq.start()


@pytest.mark.parametrize(
    ("heard", "named"),
    [
        (recording(), "0 marks of 2 rows are heard: is OUT2 wired to IN2"),
        (recording(MARKED), "1 marks of 2 rows"),
        (recording(MARKED, MARKED, lag=100), "2 marks of 2 rows"),
        (recording([16] * ROW, [16] * ROW), "0 marks"),  # little-endian 4096
        (recording([20_000] * ROW), "beyond 14 bits"),
        (recording(MARKED, samples=64), "announced, not 32768"),
        (b"{0,0,0,0}", "instead of a data block"),
    ],
)
def test_a_recording_that_is_not_the_test_shots_stops_the_start(make_redpitaya, rig, heard, named):
    firmware = rig.instruments["redpitaya"]
    firmware._device._handlers.override("ACQ:SOUR2:DATA?", lambda _: heard.removesuffix(b"\r\n"))
    with make_redpitaya(samples=ROW, gap_samples=GAP) as daq:
        with pytest.raises(ProtocolError, match=f"redpitaya: .*{named}"):
            daq.start()
        assert firmware.outputs_on == (False, False)


@pytest.mark.parametrize(
    ("header", "answer", "error", "named"),
    [
        ("ACQ:DEC:F", "128", InstrumentRefused, "decimation: set to 125 but is 128"),
        ("ACQ:SOUR2:GAIN", "HV", InstrumentRefused, "input 2 gain: set to 'LV' but is 'HV'"),
        ("SOUR1:FREQ:FIX", "61.0", InstrumentRefused, "output 1 frequency"),
        ("SOUR2:BURS:NCYC", "2", InstrumentRefused, "output 2 burst_cycles"),
        ("SOUR2:VOLT", "much", ProtocolError, "output 2 amplitude: unexpected answer"),
        ("ACQ:AVG", "maybe", ProtocolError, "average_skipped_samples: unexpected answer"),
    ],
)
def test_settings_are_verified_by_reading_them_back(
    make_redpitaya, rig, header, answer, error, named
):
    firmware = rig.instruments["redpitaya"]
    firmware._device._handlers.override(f"{header}?", lambda _: answer)
    with make_redpitaya() as daq, pytest.raises(error, match=named):
        daq.start()


def test_an_instrument_that_knows_no_such_setting_is_named(make_redpitaya, rig):
    rig.inject("redpitaya", Fault.REFUSE, "ACQ:DEC:F")
    with make_redpitaya() as daq, pytest.raises(InstrumentRefused, match="settings: -200"):
        daq.start()


# --- with the simulated board ------------------------------------------------------------------


def quantised(drive_v, full_v):
    return np.minimum(np.rint(drive_v / full_v * 8192), 8191) / 8192 * full_v


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 40])
def test_rows_are_the_plants_within_the_converters_steps(make_redpitaya, plant, rows):
    drive = np.random.default_rng(rows).uniform(-10, 10, (rows, 208))
    with make_redpitaya() as daq:
        daq.start()
        plant.drives.clear()
        response = daq.acquire(drive)
    np.testing.assert_allclose(np.concatenate(plant.drives), quantised(drive, 10.0), atol=1e-12)
    assert [len(d) for d in plant.drives] == [16] * (rows // 16) + [rows % 16] * (rows % 16 > 0)
    assert np.abs(response - (quantised(drive, 10.0) / 2 + 1)).max() <= 10 / 8192 / 2 + 1e-12


def test_the_circuits_rows_are_the_plants(tmp_path):
    rig = circuit_rig(CircuitPlant(gap=1.0, noise=0.0))
    drive = np.random.default_rng(0).uniform(-10, 10, (20, 208))
    adapter = open_visa("mock://circuit/redpitaya", {"circuit": rig}, timeout_s=2)
    with RedPitayaDAQ(adapter, amplifier_gain=10, probe_attenuation=10) as daq:
        daq.start()
        own = rig.plant._own_rows
        response = daq.acquire(drive)
    fresh = CircuitPlant(gap=1.0, noise=0.0)
    fresh._own_rows = own  # the same drift
    assert np.abs(response - fresh.respond(quantised(drive, 10.0))).max() <= 10 / 8192 / 2 + 1e-9


@pytest.mark.parametrize("rate_hz", [125e6 / 128, 125e6 / 16, 1e6, 5e4])
def test_any_rate_of_both_converters_keeps_rows_in_step(make_redpitaya, plant, rate_hz):
    with make_redpitaya(rate_hz=rate_hz, samples=20, gap_samples=80) as daq:
        daq.start()
        assert daq.rows_at_once == 163
        drive = np.random.default_rng(0).uniform(-10, 10, (163, 20))
        daq.acquire(drive)
    np.testing.assert_allclose(plant.drives[-1], quantised(drive, 10.0), atol=1e-12)


def test_a_generator_that_is_not_in_step_is_found_at_start(make_redpitaya, rig):
    """Firmware without a fraction in its step: 524 instead of 524.288 of 2^30 a tick."""
    firmware = rig.instruments["redpitaya"]
    handlers = firmware._device._handlers

    def play_slower(output):
        firmware._generators[output].frequency = 61.0016

    for i in (1, 2):
        handlers.override(f"SOUR{i}:FREQ:FIX?", lambda _: "61.0352")
        handlers.override(f"SOUR{i}:FREQ:FIX", lambda _, i=i: play_slower(i))
    with make_redpitaya() as daq, pytest.raises(ProtocolError, match="8 samples off: are both"):
        daq.start()
    assert firmware.outputs_on == (False, False)


def test_saturation_shows_at_both_ends(make_redpitaya, plant, monkeypatch):
    monkeypatch.setattr(plant, "respond", lambda drive_v: 5 * drive_v)
    with make_redpitaya() as daq:
        daq.start()
        low, high = daq.acquire([[-10.0] * 208, [10.0] * 208])
    assert set(low) == {daq.response.low}
    assert set(high) == {daq.response.high}


def test_a_response_outside_is_the_limit_of_the_probe(make_redpitaya):
    daq = make_redpitaya(amplifier_gain=1.0, probe_attenuation=20.0)
    assert (daq.drive.low, daq.drive.high) == (-1, 1)
    assert (daq.response.low, daq.response.high) == (-20, 20)
    assert make_redpitaya(drive=(-2, 3)).drive.high == 3


@pytest.mark.parametrize(
    ("settings", "error", "named"),
    [
        ({"rate_hz": 125e6 / 9}, LimitError, "rate: 1.38889e\\+07 Hz is not 125 MHz over"),
        ({"rate_hz": 0}, LimitError, "rate"),
        ({"rate_hz": 999e3}, LimitError, "rate"),
        ({"samples": 16_000, "gap_samples": 321}, LimitError, "more than 16320 of a table"),
        ({"samples": 1}, LimitError, "below 2 and 1"),
        ({"amplifier_gain": 0.0}, LimitError, "amplifier_gain: 0.0 is not above 0"),
        ({"probe_attenuation": -1.0}, LimitError, "probe"),
        ({"drive": (-11, 11)}, ValueError, "wider"),
        ({"drive": (1, 2)}, ValueError, "leaves out 0 V"),
        ({"colour": "red"}, TypeError, "unknown settings colour"),
    ],
)
def test_settings_out_of_limits_are_refused(make_redpitaya, settings, error, named):
    with pytest.raises(error, match=named):
        make_redpitaya(**settings)


@pytest.mark.parametrize("value", [10.001, -10.001, np.nan, np.inf])
def test_a_drive_out_of_limits_sends_nothing(make_redpitaya, plant, value):
    drive = np.zeros((20, 208))
    drive[19, 207] = value
    with make_redpitaya() as daq:
        daq.start()
        plant.drives.clear()
        with pytest.raises(LimitError, match=r"redpitaya: drive: .* at index \[19, 207\]"):
            daq.acquire(drive)
        with pytest.raises(LimitError, match="shape"):
            daq.acquire(np.zeros(208))
    assert plant.drives == []


def test_outputs_are_off_but_for_the_shot(make_redpitaya, rig):
    firmware = rig.instruments["redpitaya"]
    seen = []
    record = firmware._record
    firmware._record = lambda *a: (seen.append(firmware.outputs_on), record(*a))
    with make_redpitaya() as daq:
        assert firmware.outputs_on == (False, False)
        daq.start()
        assert firmware.outputs_on == (False, False)
        daq.acquire(np.ones((3, 208)))
        assert firmware.outputs_on == (False, False)
    assert seen == [(True, True)] * 2


def test_after_the_safe_state_only_start_allows_a_shot(make_redpitaya):
    with make_redpitaya() as daq:
        for stop in (lambda: None, daq.shutdown):
            stop()
            with pytest.raises(InstrumentRefused, match="start it first"):
                daq.acquire(np.zeros((1, 208)))
            daq.start()
            daq.acquire(np.zeros((1, 208)))


@pytest.mark.parametrize(
    ("fault", "on", "error"),
    [
        (Fault.TIMEOUT, "ACQ:TRIG:STAT?", InstrumentTimeout),
        (Fault.GARBAGE, "ACQ:TRIG:FILL?", ProtocolError),
        (Fault.TRUNCATE, "ACQ:SOUR1:DATA?", ProtocolError),
        (Fault.REFUSE, "SOUR1:TRAC", InstrumentRefused),
        (Fault.DROP, "OUTPUT:STATE ON", ConnectionLost),
    ],
)
def test_a_fault_in_a_shot_ends_in_the_safe_state_and_start_recovers(
    make_redpitaya, rig, plant, fault, on, error
):
    firmware = rig.instruments["redpitaya"]
    with make_redpitaya() as daq:
        daq.start()
        rig.inject("redpitaya", fault, on)
        with pytest.raises(error, match="redpitaya: "):
            daq.acquire(np.ones((3, 208)))
        if fault is not Fault.DROP:
            assert firmware.outputs_on == (False, False)
            assert plant.forgotten
        with pytest.raises((ConnectionLost, InstrumentRefused), match="start it"):
            daq.acquire(np.ones((3, 208)))
        daq.start()
        assert firmware.outputs_on == (False, False)
        np.testing.assert_allclose(daq.acquire(np.ones((3, 208))), 1.5, atol=2e-3)


def test_a_shot_that_never_triggers_times_out(make_redpitaya, rig):
    rig.instruments["redpitaya"]._device._handlers.override("ACQ:TRIG:STAT?", lambda _: "WAIT")
    with make_redpitaya(timeout_s=0.0) as daq, pytest.raises(InstrumentTimeout, match="still WAIT"):
        daq.start()


def test_an_abort_ends_a_shot_and_start_clears_it(make_redpitaya, rig):
    polled = threading.Event()

    def wait(_):
        polled.set()
        return "WAIT"

    firmware = rig.instruments["redpitaya"]
    ends = []
    with make_redpitaya() as daq:
        daq.start()
        firmware._device._handlers.override("ACQ:TRIG:STAT?", wait)

        def shoot():
            try:
                daq.acquire(np.zeros((1, 208)))
            except Aborted as aborted:
                ends.append(str(aborted))

        thread = threading.Thread(target=shoot)
        thread.start()
        assert polled.wait(10)
        daq.abort()
        thread.join(10)
        assert ends == ["redpitaya: shot: aborted"]
        assert firmware.outputs_on == (False, False)
        with pytest.raises(Aborted):
            daq.acquire(np.zeros((1, 208)))
        firmware._device._handlers.override("ACQ:TRIG:STAT?", lambda _: "TD")
        daq.start()
        daq.acquire(np.zeros((1, 208)))


def test_a_digital_input_is_read_and_an_output_is_not_believed(make_redpitaya, rig):
    firmware = rig.instruments["redpitaya"]
    with make_redpitaya() as daq:
        assert daq.digital_input("DIO0_P") is False
        firmware.pins["DIO10_N"] = 1
        assert daq.digital_input("DIO10_N") is True
        daq.write("DIG:PIN:DIR OUT,DIO10_N")
        with pytest.raises(InstrumentRefused, match="DIO10_N is set as an output"):
            daq.digital_input("DIO10_N")
        for name in ("LED0", "DIO11_P", "DIO0_P;*RST"):
            with pytest.raises(LimitError, match="pin"):
                daq.digital_input(name)
        firmware._device._handlers.override("DIG:PIN?", lambda _: "maybe")
        with pytest.raises(ProtocolError, match="answered 'maybe'"):
            daq.digital_input("DIO0_P")


# --- the table ------------------------------------------------------------------------------------


def sent(codes):
    return np.array(table_text(np.asarray(codes, dtype=np.int16)).split(","), dtype=float)


def test_every_step_of_the_dac_survives_the_text():
    codes = np.arange(-8192, 8193)
    np.testing.assert_array_equal(np.rint(sent(codes) * 8192), codes)
    assert table_text(np.array([0, 8192, -8192, 4096], dtype=np.int16)) == "0,1,-1,0.5"


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_the_text_is_within_half_a_step(values):
    assert np.abs(sent(steps(np.array(values), -1, 1)) - values).max() <= 0.5 / 8192 + 5.1e-6


@given(st.floats(-1, 0), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1))
def test_no_value_is_rounded_across_a_limit(low, high, shares):
    values = low + (high - low) * np.array(shares)
    codes = steps(np.clip(values, low, high), low, high)
    assert low - 1e-12 <= codes.min() / 8192
    assert codes.max() / 8192 <= high + 1e-12


@given(st.integers(2, 300), st.integers(1, 900), st.integers(-15, 47), st.data())
def test_rows_laid_out_are_found_again(samples, gap, lag, data):
    table = RowTable(samples, gap)
    rows = data.draw(st.integers(1, table.rows_at_once))
    codes = np.random.default_rng(rows).integers(-8192, 8192, (rows, samples)).astype(np.int16)
    recorded = np.roll(table.lay_out(codes), lag)
    np.testing.assert_array_equal(table.cut(recorded, 16 + lag, rows), codes)
    assert first_mark(np.roll(table.marks(rows), lag)) == 16 + lag


def test_narrowed_limits_hold_behind_the_dac(make_redpitaya, rig):
    """As the board counts them, for rows that exhaust them and are rounded."""
    firmware = rig.instruments["redpitaya"]
    firmware.bounds = Bounds(-0.7, 0.3, slew=0.45)
    generator = np.random.default_rng(0)
    with make_redpitaya(drive={"low": -0.7, "high": 0.3, "slew": 0.45}) as daq:
        daq.start()
        rows = generator.uniform(-0.7, 0.3, (64, 208))
        for i in range(208):  # as far as slew and range let them go
            before = rows[:, i - 1] if i else np.zeros(64)
            far = (daq.drive.row_limits[0].most) * (1 - 1e-12)
            rows[:, i] = np.clip(rows[:, i], before - far, before + far)
        rows[:, -1] = np.clip(rows[:, -1], -far, far)
        rows = rows[np.abs(np.diff(rows)).max(axis=1) <= far]
        rows[0], rows[1] = -0.4, 0.3
        daq.acquire(rows)
        assert firmware.out_of_limits == 0
        for low, high, named in ((-0.71, 0, "outside"), (0, 0.31, "outside"), (-0.46, 0, "slew")):
            bad = np.zeros((17, 208))
            bad[16, :2] = low, high
            with pytest.raises(LimitError, match=f"redpitaya: drive: .*{named}"):
                daq.acquire(bad)
    assert firmware.out_of_limits == 0
    firmware.bounds = Bounds(-0.1, 0.1, slew=0.1)
    with make_redpitaya() as daq:
        daq.start()
        daq.acquire(np.full((1, 208), 0.2))
    assert firmware.out_of_limits == 208 + 1


# --- the simulated board as a plain SCPI client meets it ------------------------------------------


@pytest.fixture
def board(plant):
    return RedPitayaFirmware(plant)


@pytest.fixture
def client(board):
    adapter = FirmwareAdapter(board)

    def ask(message):
        adapter.write(message)
        return adapter.read() if message.endswith("?") or "? " in message else None

    return ask


def test_a_table_too_long_is_refused_and_counted(board, client):
    client("SOUR1:TRAC:DATA:DATA " + ",".join(["0"] * 16_387))
    assert client("SYST:ERR:NEXT?") == '9506,"Value out of range."'
    assert board.out_of_limits == 3
    client("SOUR1:TRAC:DATA:DATA 0,1.5,nan,-1,inf")
    assert board.out_of_limits == 6
    client("SOUR1:VOLT 1;VOLT:OFFS 0.5")
    assert client("SYST:ERR:NEXT?") == '9506,"Value out of range."'
    assert board.out_of_limits == 7


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("SOUR3:FUNC SINE", '9500,"Invalid channel number"'),
        ("SOUR1:FUNC ROUND", '-224,"Illegal parameter value"'),
        ("SOUR1:TRAC:DATA:DATA", '-109,"Missing parameter"'),
        ("SOUR1:TRAC:DATA:DATA #14abcd", '-104,"Data type error"'),
        ("ACQ:DEC:F 9", '9506,"Value out of range."'),
        ("DIG:PIN DIO0_P,1", '9509,"Writing to input pin is not valid."'),
        ("ACQ:NONSENSE", '-113,"Undefined header"'),
    ],
)
def test_errors_are_queued(client, message, answer):
    client(message)
    assert client("SYST:ERR:NEXT?") == answer
    assert client("SYST:ERR:NEXT?") == '0,"No error"'


def test_format_units_and_errors_are_each_connections_own(board):
    one, other = board.connect(), board.connect()
    one.receive(b"ACQ:DATA:FORMAT BIN\r\nACQ:DATA:UNITS RAW\r\nNONSENSE\r\n")
    asked = b"ACQ:DATA:FORMAT?\r\nACQ:DATA:UNITS?\r\nSYST:ERR:COUN?\r\n"
    assert one.receive(asked) == b"BIN\r\nRAW\r\n1\r\n"
    assert other.receive(asked) == b"ASCII\r\nVOLTS\r\n0\r\n"
    one.receive(b"ACQ:RST\r\n")
    assert one.receive(asked) == b"ASCII\r\nVOLTS\r\n1\r\n"


def test_a_recording_in_every_format(board, client):
    board._acquisition.codes[1][:3] = [1, -2, 8191]
    query = "ACQ:SOUR1:DATA:OLD:N? 3"
    assert client(query) == "{0.000122,-0.000244,0.999878}"
    client("ACQ:DATA:UNITS RAW")
    assert client(query) == "{1,-2,8191}"
    session = board.connect()
    session.receive(b"ACQ:DATA:FORMAT BIN\r\nACQ:DATA:UNITS RAW\r\n")
    assert (
        session.receive(query.encode() + b"\r\n")
        == b"#16" + struct.pack(">3h", 1, -2, 8191) + b"\r\n"
    )
    session.receive(b"ACQ:DATA:UNITS VOLTS\r\n")
    assert (
        session.receive(query.encode() + b"\r\n")
        == b"#212" + struct.pack(">3f", 1 / 8192, -2 / 8192, 8191 / 8192) + b"\r\n"
    )


def test_a_recording_takes_its_time_where_times_are_honoured(plant):
    now = [0.0]
    board = RedPitayaFirmware(plant, honour_times=True, clock=lambda: now[0])
    session = board.connect()
    session.receive(b"ACQ:DEC:F 125\r\nACQ:START\r\nACQ:TRIG AWG_PE\r\n")
    asked = b"ACQ:TRIG:STAT?\r\nACQ:TRIG:FILL?\r\n"
    assert session.receive(asked) == b"WAIT\r\n0\r\n"
    session.receive(b"SOUR1:TRIG:INT\r\n")
    assert session.receive(asked) == b"TD\r\n0\r\n"
    now[0] = 0.0164
    assert session.receive(asked) == b"TD\r\n1\r\n"


def test_what_was_before_the_trigger_is_recorded_without_a_delay(board, client, plant):
    client("SOUR1:FUNC ARBITRARY;BURS:STAT BURST;:SOUR1:VOLT 1;FREQ:FIX 7629.39453125")
    client("SOUR1:TRAC:DATA:DATA 1,1,1;:OUTPUT1:STATE ON;:ACQ:START;:ACQ:TRIG AWG_PE")
    client("SOUR1:TRIG:INT")
    (drive,) = plant.drives[-1]
    assert np.flatnonzero(drive).tolist() == [8192, 8193, 8194]


HEADERS = sorted(RedPitayaFirmware(None)._commands())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(HEADERS),
            st.integers(0, 3),
            st.one_of(
                st.sampled_from(
                    ["", "1", "-1", "1e999", "nan", "BIN", "ON", "AWG_PE", "1,2", "#13abc", "\xb2"]
                ),
                st.text("0123456789+-.,eE \"'#", max_size=12),
            ),
        ),
        max_size=10,
    )
)
def test_whatever_arrives_the_board_answers_or_queues_an_error(commands):
    board = RedPitayaFirmware(_Silent())
    session = board.connect()
    for header, number, parameters in commands:
        text = f"{header.replace('#', str(number))} {parameters}\r\n"
        session.receive(text.replace("[", "").replace("]", "").encode("latin-1"))


class _Silent:
    def respond(self, drive_v):
        return np.zeros_like(drive_v)

    def forget(self):
        pass

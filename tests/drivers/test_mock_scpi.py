"""The simulated instruments' command language, after SCPI-1999 and IEEE 488.2."""

import itertools
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drivers.mock.faults import ConnectionDropped, Fault
from drivers.mock.firmware import scpi_parser
from drivers.mock.firmware.scpi import ScpiDevice, ScpiSession, block
from drivers.mock.firmware.scpi_headers import spellings
from drivers.mock.firmware.yokogawa import IDENTITY, AQ6370Firmware


class Light:
    """A spectrum that is different for every sweep."""

    def __init__(self):
        self.sweeps = 0

    def __call__(self, axis):
        self.sweeps += 1
        return self.sweeps * np.linspace(1e-9, 1e-6, len(axis))


@pytest.fixture
def firmware():
    return AQ6370Firmware(Light(), login=False)


@pytest.fixture
def ask(firmware):
    session = firmware.connect()

    def ask(message):
        return session.receive(message.encode() + b"\r\n").decode().removesuffix("\r\n")

    return ask


def errors(ask):
    """Empty the error queue and return the numbers."""
    found = []
    while (entry := ask("SYST:ERR?")) != '0,"No error"':
        found.append(int(entry.partition(",")[0]))
    return found


def test_spellings():
    assert set(spellings(":INITiate[:IMMediate]")) == {
        "INIT",
        "INITIATE",
        "INIT:IMM",
        "INIT:IMMEDIATE",
        "INITIATE:IMM",
        "INITIATE:IMMEDIATE",
    }
    assert set(spellings(":TRACe:Y1?")) == {"TRAC:Y1?", "TRACE:Y1?"}


@pytest.mark.parametrize(
    "query",
    [
        ":SENSe:SWEep:POINts?",
        ":SENS:SWE:POIN?",
        "SENS:SWEEP:POIN?",
        ":sens:swe:poin?",
        "  :SENS:SWE:POIN?  ",
    ],
)
def test_short_long_and_lower_case_headers(ask, query):
    assert ask(query) == "1001"
    assert errors(ask) == []


@pytest.mark.parametrize("query", [":SEN:SWE:POIN?", ":SENSE:SWEEP:POINT?", ":SENS:SWE:POIN:X?"])
def test_nothing_between_short_and_long(ask, query):
    assert ask(query) == ""
    assert errors(ask) == [-113]


def test_chained_commands_go_on_at_the_same_level(ask):
    assert ask(":SENS:WAV:STAR 700NM;STOP 8.0E-7;:SENS:SWE:POIN 201;*ESE 3") == ""
    assert ask(":SENS:WAV:STAR?;STOP?;*ESE?;:SENS:SWE:POIN?") == (
        "+7.00000000E-07;+8.00000000E-07;3;201"
    )
    assert errors(ask) == []


def test_a_common_command_does_not_change_the_level(ask):
    assert ask(":SENS:WAV:STAR 700NM;*CLS;STOP 800NM") == ""
    assert errors(ask) == []


@pytest.mark.parametrize(
    ("message", "code", "bit"),
    [
        (":NO:SUCH:HEADER", -113, 32),
        ("*NIX?", -113, 32),
        (":SENS:SWE:POIN!", -102, 32),
        ("\xff\xfe", -102, 32),
        (":SENS:SWE:POIN", -109, 32),
        (":FORM", -109, 32),
        ("*ESE", -109, 32),
        (":SENS:SWE:POIN 101,102", -108, 32),
        (":SENS:SWE:POIN many", -104, 32),
        ("*ESE x", -104, 32),
        (":SENS:SWE:POIN 100", -222, 16),
        (":SENS:WAV:STAR 2000NM", -222, 16),
        ("*ESE 256", -222, 16),
        (":FORM:DATA REAL,16", -224, 16),
        (":INIT:SMOD 9", -224, 16),
        (":TRAC:Y? TRQ", -224, 16),
    ],
)
def test_error_numbers_and_event_status(ask, message, code, bit):
    assert ask(message) == ""
    assert ask("*STB?") == "4"
    assert ask("*ESR?") == str(bit)
    assert ask("*ESR?") == "0"
    assert errors(ask) == [code]
    assert ask("*STB?") == "0"


def test_a_refused_setting_keeps_its_value_and_the_rest_goes_on(ask):
    assert ask(":SENS:SWE:POIN 5;POIN?;:FORM?") == "1001;ASCII"
    assert errors(ask) == [-222]


def test_numbers_out_of_limits_are_counted(firmware, ask):
    ask(":SENS:SWE:POIN 100;:SENS:WAV:STAR 2000NM;:SENS:SWE:POIN many;:SENS:SWE:POIN 201")
    assert firmware.out_of_limits == 2


def test_event_status_reaches_the_status_byte_through_its_mask(ask):
    ask("*ESE 32")
    ask(":NONSENSE")
    assert ask("*STB?") == "36"
    ask("*CLS")
    assert ask("*STB?;*ESR?") == "0;0"


def test_the_error_queue_overflows_with_minus_350(ask):
    for _ in range(30):
        ask(":NONSENSE")
    assert errors(ask) == [-113] * 19 + [-350]


def test_reset_restores_settings_and_keeps_the_error_queue(ask):
    ask(":SENS:SWE:POIN 201;:NONSENSE")
    ask("*RST")
    assert ask(":SENS:SWE:POIN?") == "1001"
    assert errors(ask) == [-113]
    assert ask("*OPC?;*IDN?") == f"1;{IDENTITY}"


def test_traces_in_every_format(firmware, ask):
    session = firmware.connect()
    ask(":SENS:WAV:STAR 700NM;STOP 800NM;:SENS:SWE:POIN 101;:DISP:TRAC:Y1:SPAC LIN;:INIT")
    power = np.linspace(1e-9, 1e-6, 101)
    text = [float(v) for v in ask(":TRAC:Y? TRA").split(",")]
    np.testing.assert_allclose(text, power, rtol=1e-8)
    np.testing.assert_allclose(
        [float(v) for v in ask(":TRAC:X? TRA").split(",")], np.linspace(700e-9, 800e-9, 101)
    )
    session.receive(b":FORM REAL,32\n")
    block = session.receive(b":TRACE:DATA:Y? TRA\n")
    assert block == b"#3404" + struct.pack("<101f", *power) + b"\r\n"
    session.receive(b":FORM REAL,64\n")
    block = session.receive(b":TRACE:Y? TRA\n")
    assert block == b"#3808" + struct.pack("<101d", *power) + b"\r\n"
    assert ask(":TRAC:SNUM? TRA;:TRAC:DATA:SNUM? TRA") == "101;101"


def test_the_logarithmic_scale_is_dbm_with_a_floor(ask):
    ask(":SENS:WAV:STAR 700NM;STOP 800NM;:SENS:SWE:POIN 101;:INIT")
    level = [float(v) for v in ask(":TRAC:Y? TRA").split(",")]
    np.testing.assert_allclose(level, 10 * np.log10(np.linspace(1e-9, 1e-6, 101) / 1e-3), rtol=1e-8)
    dark = AQ6370Firmware(lambda axis: np.zeros(len(axis)), login=False).connect()
    dark.receive(b":INIT\n")
    assert dark.receive(b":TRAC:Y? TRA\n").startswith(b"-2.10000000E+02,")


def test_a_sweep_takes_its_time_and_the_old_trace_stays_until_then():
    now = [0.0]
    light = Light()
    firmware = AQ6370Firmware(light, sweep_time_s=0.25, login=False, clock=lambda: now[0])
    session = firmware.connect()
    status = b":STAT:OPER:COND?;:TRAC:SNUM? TRA\n"
    assert session.receive(status) == b"1;0\r\n"
    session.receive(b":SENS:SWE:POIN 101;:INIT\n")
    now[0] = 0.24
    assert session.receive(status) == b"0;0\r\n"
    now[0] = 0.26
    assert session.receive(status) == b"1;101\r\n"
    session.receive(b":INIT\n")
    session.receive(b":ABOR\n")
    assert session.receive(status) == b"1;101\r\n"
    assert light.sweeps == firmware.sweeps == 2


def test_bytes_may_arrive_in_any_pieces(firmware):
    session = firmware.connect()
    assert session.receive(b"*ID") == b""
    assert session.receive(b"N?\r") == b""
    assert session.receive(b"\n*OPC?\n\r\n") == IDENTITY.encode() + b"\r\n1\r\n"


def test_login_is_per_connection():
    firmware = AQ6370Firmware(Light())
    session = firmware.connect()
    assert session.receive(b"*IDN?\r\n") == b""
    assert session.receive(b'OPEN "anonymous"\r\n') == b"AUTHENTICATE CRAM-MD5.\r\n"
    assert session.receive(b"any\r\n") == b"READY\r\n"
    assert session.receive(b"*OPC?\r\n") == b"1\r\n"
    assert firmware.connect().receive(b"*OPC?\r\n") == b""
    assert session.receive(b"CLOSE\r\n*OPC?\r\n") == b""
    assert session.receive(b'OPEN "somebody"\r\n') == b""


@pytest.mark.parametrize(
    ("fault", "first", "second"),
    [
        (Fault.TIMEOUT, b"", b"1\r\n0\r\n"),
        (Fault.GARBAGE, b"\xff\xfe\x00?!\r\n", b"0\r\n"),
        (Fault.REFUSE, b"", b"0\r\n"),
    ],
)
def test_a_fault_strikes_once(firmware, fault, first, second):
    session = firmware.connect()
    firmware.inject(fault, on="OPC")
    assert session.receive(b"*ESR?\n") == b"0\r\n"
    assert session.receive(b"*OPC?\n") == first
    session.receive(b"*CLS\n")
    assert session.receive(b"*ESR?\n") == second
    assert session.receive(b"*OPC?\n") == b"1\r\n"


def test_truncated_and_foreign_answers(firmware):
    session = firmware.connect()
    firmware.inject(Fault.TRUNCATE)
    assert session.receive(b"*IDN?\n") == IDENTITY.encode()[: len(IDENTITY) // 2]
    firmware.inject(Fault.IDENTITY)
    assert session.receive(b"*OPC?\n") == b"1\r\n"
    assert session.receive(b"*IDN?\n") == b"OTHER,OSA 1,0,0\r\n"
    assert session.receive(b"*IDN?\n") == IDENTITY.encode() + b"\r\n"


def test_a_dropped_connection_stays_dropped_and_others_live(firmware):
    session, other = firmware.connect(), firmware.connect()
    firmware.inject(Fault.DROP)
    for _ in range(2):
        with pytest.raises(ConnectionDropped):
            session.receive(b"*OPC?\n")
    assert other.receive(b"*OPC?\n") == b"1\r\n"
    other.close()
    with pytest.raises(ConnectionDropped):
        other.receive(b"*OPC?\n")


# --- the interpreter with an instrument of its own ----------------------------------------------


COMMANDS = {
    "SOUR#:FUNC": lambda a: a.connection.settings.update({f"func{a.suffixes[0]}": a.single()}),
    "SOUR#:FUNC?": lambda a: a.connection.settings.get(f"func{a.suffixes[0]}", "SINE"),
    "OUTPUT:STATE?": lambda _: "both",
    "OUTPUT#:STATE?": lambda a: f"one {a.suffixes[0]}",
    "ACQ:SOUR#:DATA?": lambda a: block(bytes(a.suffixes)),
    ":MATRix#:CELL#[:VALue]?": lambda a: "{},{}".format(*a.suffixes),
    ":TRACe:Y1?": lambda _: "one",
    ":TRACe:Y2?": lambda _: "two",
    ":DATA": lambda a: a.connection.settings.update(data=a[-1]),
    ":DATA?": lambda a: block(a.connection.settings.get("data", "").encode("latin-1")),
    ":LEVel": lambda a: a.connection.settings.update(level=str(a.integer(-5, 5))),
    ":LEVel?": lambda a: a.connection.settings.get("level", "0"),
    ":COUNt?": lambda a: str(len(a)),
    ":ECHO?": lambda a: block(",".join(a).encode("latin-1")),
}


def bench(**options):
    return ScpiDevice("MAKER,MODEL,1,1", COMMANDS, **options)


def session(device=None, **options):
    return ScpiSession(device or bench(), login=False, **options)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (b"ACQ:SOUR2:DATA?", b"#11\x02"),
        (b"acq:sour:data?", b"#11\x01"),
        (b"OUTPUT:STATE?", b"both"),
        (b"OUTPUT2:STATE?", b"one 2"),
        (b"MATR3:CELL4?", b"3,4"),
        (b"MATRIX:CELL12:VAL?", b"1,12"),
        (b"TRAC:Y1?;Y2?", b"one;two"),
    ],
)
def test_numbers_in_headers(query, answer):
    assert session().receive(query + b"\n") == answer + b"\r\n"


@pytest.mark.parametrize("query", [b"TRAC:Y3?", b"TRAC:Y?", b"MATR#:CELL?", b"SOUR1X:FUNC?"])
def test_a_number_that_is_not_foreseen_is_another_header(query):
    line = session()
    assert line.receive(query + b"\n") == b""
    assert line.receive(b"SYST:ERR?\n")[:4] in (b"-113", b"-102")


@pytest.mark.parametrize(
    "content",
    [b"", b"a;b", b"\n", b"\r", b" ", b"\r\n*RST\r\n", b"'", b'"', b"#15", bytes(range(256))],
)
def test_a_block_may_hold_any_byte(content):
    line = session()
    sent = b":DATA 1," + block(content) + b";:LEV 3;:LEV?\n:DATA?\nSYST:ERR?\n"
    assert line.receive(sent) == b"3\r\n" + block(content) + b'\r\n0,"No error"\r\n'


@pytest.mark.parametrize("sent", [b"#3x", b"#29", b"#9999999999", b"#15abc", b"#15abcdefg", b"#"])
def test_a_broken_block_is_an_error_and_the_next_message_is_heard(sent):
    line = session()
    line.receive(b":DATA " + sent)
    # a block that stops early swallows what follows, as it would in the real instrument
    line.receive(b"\n\n\n\n\n\n\n\n\n")
    line.receive(b"0" * 100 + b"\n")
    line.receive(b"*CLS\n")
    assert line.receive(b"*OPC?\n") == b"1\r\n"


def test_a_block_without_a_length_goes_to_the_end_of_the_line():
    assert session().receive(b":DATA #0ab;:LEV 3\n:DATA?\n") == b"#19ab;:LEV 3\r\n"


def test_strings_hold_separators():
    line = session()
    assert line.receive(b":COUN? 'a;b,c',\"d,;\",3;:LEV?\n") == b"3;0\r\n"
    assert line.receive(b":COUN? 'never closed;,\n:LEV?\n") == b"1\r\n0\r\n"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b":LEV 6", -222),
        (b":LEV -6", -222),
        (b":LEV 99999999999999999999", -222),
        (b":LEV x", -104),
        (b":LEV \xb2", -104),
        (b":LEV", -109),
        (b":LEV 1,2", -108),
        (b":DATA #13abcd", -161),
        (b"?", -102),
        (b"L\xc9VEL 1", -102),
    ],
)
def test_what_a_parameter_must_be(message, code):
    line = session()
    line.receive(message + b"\n")
    assert line.receive(b"SYST:ERR:COUNT?\n") == b"1\r\n"
    assert line.receive(b"SYST:ERR:NEXT?\n").startswith(b"%d," % code)


def test_status_and_settings_per_connection():
    device = bench(status_per_connection=True, errors_at_most=16)
    one, other = session(device), session(device)
    for _ in range(20):
        one.receive(b"NONSENSE\n")
    one.receive(b"SOUR2:FUNC ARBITRARY\n*ESE 8\n")
    assert one.receive(b"SYST:ERR:COUN?;:SOUR2:FUNC?;*ESE?\n") == b"16;ARBITRARY;8\r\n"
    assert other.receive(b"SYST:ERR:COUN?;:SOUR2:FUNC?;*ESE?;*ESR?\n") == b"0;SINE;0;0\r\n"


def test_operation_complete_service_request_self_test():
    line = session()
    assert line.receive(b"*WAI;*TST?;*OPC;*ESR?;*ESR?\n") == b"0;1;0\r\n"
    assert line.receive(b"*SRE 4;*SRE?;*STB?\n") == b"4;0\r\n"
    assert line.receive(b"NONSENSE\n*STB?\n") == b"68\r\n"


def test_a_terminator_of_two_characters():
    line = session(terminator=b"\r\n")
    assert line.receive(b"*OPC?\n") == b""
    assert line.receive(b";*OPC?\r\n") == b"1;1\r\n"


def test_answers_end_in_what_the_instrument_ends_them_with():
    assert session(reply_terminator=b"\n").receive(b"*OPC?\n:ECHO? a\n") == b"1\n#11a\n"


def test_a_message_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(scpi_parser, "LONGEST_MESSAGE", 100)
    line = session()
    assert line.receive(b":LEV " + b"0" * 200) == b""
    assert line.receive(b"3\n*OPC?\n") == b"1\r\n"
    assert line.receive(b"SYST:ERR?\n").startswith(b"-363,")


# --- properties ---------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"*IDN?",
        b":LEV 3",
        b"LEV?",
        b"SOUR2:FUNC ARB",
        b"SOUR2:FUNC?",
        b"NO:SUCH",
        b":SYST:ERR?",
        b":DATA #15ab\n;c",
        b":DATA?",
        b":ECHO? 'a;b',\"#12\n",
        b":DATA #0x;y",
        b";",
        b"\n",
        b"\r\n",
        b"#",
        b"'",
        b" ",
        b"\xff\xb2",
        b":LEV #9",
    ]
)


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 200), max_size=8))
@example([b"SOUR2:FUNC ARB", b"\xff\xb2", b"\n", b"SOUR2:FUNC?"], [])
def test_any_chunking_of_the_bytes_gives_the_same_answers(pieces, cuts):
    stream = b"".join(pieces) + b"\n*OPC?\n"
    bounds = [0, *sorted(min(c, len(stream)) for c in cuts), len(stream)]
    whole, cut, single = session(), session(), session()
    expected = whole.receive(stream)
    assert b"".join(cut.receive(stream[a:b]) for a, b in itertools.pairwise(bounds)) == expected
    assert b"".join(single.receive(stream[i : i + 1]) for i in range(len(stream))) == expected


@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=20))
def test_random_bytes_raise_nothing(pieces):
    line = session()
    for piece in pieces:
        line.receive(piece)


@given(st.binary(max_size=300))
def test_every_block_comes_back(content):
    for end in (b"\n", b"\r\n"):
        sent = b":DATA " + block(content) + end + b":DATA?" + end
        assert session(terminator=end).receive(sent) == block(content) + b"\r\n"


OSA_HEADERS = sorted(AQ6370Firmware(Light(), login=False)._commands())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(OSA_HEADERS),
            st.one_of(
                st.sampled_from(["", "1", "-1", "1E999", "1E-9 NM", "TRA", "\xb2", "1,2", "#0"]),
                st.text("0123456789+-.,eE nNmM\"'#", max_size=12),
            ),
        ),
        max_size=10,
    )
)
def test_whatever_arrives_the_analyser_answers_or_queues_an_error(commands):
    line = AQ6370Firmware(Light(), login=False).connect()
    line.receive(b":SENS:SWE:POIN 101\n")
    for header, parameters in commands:
        text = f"{header} {parameters}\n".replace("[", "").replace("]", "")
        line.receive(text.encode("latin-1"))

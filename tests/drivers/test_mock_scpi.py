"""The simulated instruments' command language, after SCPI-1999 and IEEE 488.2."""

import struct

import numpy as np
import pytest

from drivers.mock.faults import ConnectionDropped, Fault
from drivers.mock.scpi import spellings
from drivers.mock.yokogawa import IDENTITY, AQ6370Firmware


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

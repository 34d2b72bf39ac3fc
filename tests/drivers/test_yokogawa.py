"""The AQ6370's driver: exact messages, verified settings, binary traces, and staying in step."""

import struct
import threading
from unittest.mock import MagicMock

import numpy as np
import pytest
from pymeasure.adapters import Adapter
from pymeasure.test import expected_protocol
from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError

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
from drivers.mock.firmware.yokogawa import AQ6370Firmware
from drivers.mock.visa import FirmwareAdapter
from drivers.spectrometers.yokogawa import YokogawaAQ6370

LOGIN = [('OPEN "anonymous"', "AUTHENTICATE CRAM-MD5."), ("", "READY")]
SWEEP = [
    (":INITiate:IMMediate", None),
    (":STATus:OPERation:CONDition?", "0"),
    (":STATus:OPERation:CONDition?", "1"),
    (":SYSTem:ERRor?", '0,"No error"'),
]
VALUES = struct.pack("<101f", *np.linspace(0, 1e-6, 101))
BLOCK = b"#3404" + VALUES + b"\r\n"
IDENTITY = "YOKOGAWA,AQ6370D,91X000001,02.01"


def protocol(pairs, **settings):
    settings = {"name": "osa", "points": 101, "user": None, **settings}
    return expected_protocol(YokogawaAQ6370, pairs, **settings)


def test_measure_sends_exactly_these_messages():
    with protocol([*SWEEP, (":TRACe:Y? TRA", BLOCK)]) as osa:
        power = osa.measure()
    assert power.dtype == np.float64
    assert power.tolist() == list(struct.unpack("<101f", VALUES))


def test_the_first_command_is_preceded_by_the_login():
    with protocol([*LOGIN, ("*IDN?", IDENTITY), ("*IDN?", IDENTITY)], user="anonymous") as osa:
        assert osa.identify() == IDENTITY
        assert osa.identify() == IDENTITY


def test_start_sends_exactly_these_messages():
    settings = [
        (":FORMat:DATA", "REAL,32", "REAL,32"),
        (":DISPlay:TRACe:Y1:SCALe:SPACing", "1", "1"),
        (":CALibration:ZERO", "0", "0"),
        (":SENSe:WAVelength:STARt", "7.73365e-07", "+7.73365000E-007"),
        (":SENSe:WAVelength:STOP", "7.76635e-07", "+7.76635000E-007"),
        (":SENSe:BWIDth:RESolution", "5e-11", "+5.00000000E-011"),
        (":SENSe:SENSe", "6", "6"),
        (":SENSe:SWEep:POINts:AUTO", "0", "0"),
        (":SENSe:SWEep:POINts", "101", "101"),
        (":TRACe:ACTive", "TRA", "TRA"),
        (":INITiate:SMODe", "1", "1"),
    ]
    pairs = [
        *LOGIN,
        ("*IDN?", IDENTITY),
        ("*CLS", None),
        (":ABORt", None),
        *[(f"{header} {value}", None) for header, value, _ in settings],
        (":TRACe:ATTRibute:TRA WRITE", None),
        (":SYSTem:ERRor?", '0,"No error"'),
        *[(f"{header}?", answer) for header, _, answer in settings],
    ]
    axis = {"start_nm": 773.365, "stop_nm": 776.635}
    with protocol(pairs, user="anonymous", expect_idn="AQ6370", **axis) as osa:
        osa.start()


def test_wavelengths_keep_nine_digits():
    with protocol([(":SENSe:WAVelength:STARt 1.55000125e-06", None)]) as osa:
        osa.wavelength_start = 1.55000125e-6


def test_the_wrong_identity_stops_before_any_setting():
    pairs = [("*IDN?", "YOKOGAWA,AQ6150,1,1")]
    with (
        protocol(pairs, expect_idn="YOKOGAWA,AQ6370") as osa,
        pytest.raises(IdentityError, match="osa: 'YOKOGAWA,AQ6150,1,1' answers"),
    ):
        osa.start()


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (b"0.1,0.2\r\n", "instead of a data block"),
        (b"#0" + VALUES, "instead of a data block"),
        (b"#3400" + VALUES[4:] + b"\r\n", "400' bytes announced, not 404"),
        (b"#39x9" + VALUES + b"\r\n", "announced"),
        (b"#3404" + VALUES[:-1] + b"\r\n", "stops early"),
        (b"#3404" + VALUES + b"??", "not terminated"),
        (b"#3404" + VALUES[:-4] + struct.pack("<f", np.nan) + b"\r\n", "not finite"),
        (b"#3404" + struct.pack("<f", np.inf) + VALUES[4:] + b"\r\n", "not finite"),
    ],
)
def test_a_wrong_trace_is_a_protocol_error(answer, named):
    adapter = Scripted(answer)
    osa = YokogawaAQ6370(adapter, name="osa", points=101, user=None)
    with pytest.raises(ProtocolError, match=f"osa: :TRACe:Y. TRA: .*{named}"):
        osa.measure()


class Scripted(FirmwareAdapter):
    """The simulated instrument, but one trace is replaced."""

    def __init__(self, trace):
        super().__init__(AQ6370Firmware(lambda axis: np.zeros(len(axis)), login=False))
        self._trace = trace

    def _write(self, command, **kwargs):
        if command == ":TRACe:Y? TRA":
            self._received += self._trace
        else:
            super()._write(command, **kwargs)


def test_a_block_with_terminator_bytes_in_its_data_is_read_whole():
    tricky = b"\r\n" * 202
    with protocol([*SWEEP, (":TRACe:Y? TRA", b"#3404" + tricky + b"\r\n")]) as osa:
        assert osa.measure().tolist() == list(struct.unpack("<101f", tricky))


def test_an_unreadable_status_is_a_protocol_error():
    pairs = [(":INITiate:IMMediate", None), (":STATus:OPERation:CONDition?", "ready")]
    with protocol(pairs) as osa, pytest.raises(ProtocolError, match="'ready'"):
        osa.measure()


def test_errors_of_a_sweep_are_collected_from_the_queue():
    pairs = [
        (":INITiate:IMMediate", None),
        (":STATus:OPERation:CONDition?", "1"),
        (":SYSTem:ERRor?", '-200,"Execution error"'),
        (":SYSTem:ERRor?", '7,"Motor stalled"'),
        (":SYSTem:ERRor?", '+0,"No error"'),
    ]
    with (
        protocol(pairs) as osa,
        pytest.raises(InstrumentRefused, match=r'osa: sweep: -200,.*; 7,"Motor stalled"'),
    ):
        osa.measure()


def test_a_sweep_that_does_not_end_is_aborted():
    pairs = [*SWEEP[:2], (":ABORt", None)]
    with (
        protocol(pairs, sweep_timeout_s=0) as osa,
        pytest.raises(InstrumentTimeout, match="osa: sweep: not done after 0 s; aborted"),
    ):
        osa.measure()


ZERO_STATUS = ":CALibration:ZERO:STATus?"


def test_zero_is_started_and_polled_with_exactly_these_messages():
    pairs = [
        (":CALibration:ZERO ONCE", None),
        (ZERO_STATUS, "1"),
        (ZERO_STATUS, "0"),
        (":SYSTem:ERRor?", '0,"No error"'),
        (":CALibration:ZERO?", "0"),
    ]
    with protocol(pairs) as osa:
        osa.zero()


def test_a_zero_that_does_not_end_is_aborted():
    pairs = [(":CALibration:ZERO ONCE", None), (ZERO_STATUS, "1"), (":ABORt", None)]
    with (
        protocol(pairs, zero_timeout_s=0) as osa,
        pytest.raises(InstrumentTimeout, match="osa: zero: not done after 0 s; aborted"),
    ):
        osa.zero()


def test_abort_itself_sends_nothing_and_what_follows_is_aborted_until_start():
    with protocol([]) as osa:
        osa.abort()
        with pytest.raises(Aborted, match="osa: sweep: aborted"):
            osa.measure()
        with pytest.raises(Aborted, match="osa: zero: aborted"):
            osa.zero()


def test_close_aborts_logs_out_and_is_idempotent():
    stop = [("*CLS", None), (":ABORt", None), (":SYSTem:ERRor?", '0,"No error"')]
    pairs = [*LOGIN, *stop, ("CLOSE", None)]
    with protocol(pairs, user="anonymous") as osa:
        osa.close()
        osa.close()
        osa.shutdown()
        assert osa.adapter.connection.close.call_count == 1
        with pytest.raises(ConnectionLost, match="closed"):
            osa.measure()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"points": 100}, r"100 is outside \[101, 50001\] points"),
        ({"points": 50_002}, "50002 is outside"),
        ({"start_nm": 599.0}, r"599 to 1700 nm .* \[600, 1700\] nm"),
        ({"start_nm": 800.0, "stop_nm": 800.0}, "not a rising range"),
        ({"stop_nm": float("nan")}, "not a rising range"),
        ({"resolution_nm": 0.03}, "resolution_nm: 0.03 is not one of"),
        ({"sensitivity": "BEST"}, "sensitivity: 'BEST'"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings, named):
    with pytest.raises(LimitError, match=f"osa: .*{named}"):
        YokogawaAQ6370(MagicMock(), name="osa", **settings)


def test_unknown_settings_are_not_swallowed():
    with pytest.raises(TypeError, match="osa: unknown settings pointz"):
        YokogawaAQ6370(MagicMock(), "osa", pointz=101)


def test_the_trace_can_be_read_in_double_precision(spectrometer, shaper):
    spectrometer.start()
    shaper.load(np.zeros(20), np.zeros(20))
    spectrometer.measure()
    spectrometer.transfer_format = "REAL,64"
    power = spectrometer.get_binary_data(64)
    np.testing.assert_allclose(power, np.linspace(0, 1e-6, 101), rtol=1e-12)


def test_construction_does_no_input_or_output():
    adapter = MagicMock()
    osa = YokogawaAQ6370(adapter, "osa")
    assert adapter.mock_calls == []
    assert osa.name == "osa"


@pytest.mark.parametrize("name", [n for n in vars(YokogawaAQ6370) if not n.startswith("_")])
def test_properties_are_documented_as_pymeasure_demands(name):
    member = vars(YokogawaAQ6370)[name]
    if isinstance(member, property):
        assert (member.fget.__doc__ or "").split()[0] in ("Control", "Get", "Measure", "Set")


def test_the_axis_and_the_power_are_declared(spectrometer):
    assert spectrometer.power.shape == (101,)
    assert (spectrometer.power.low, spectrometer.power.high) == (0.0, np.float32(1.6e-6))
    np.testing.assert_allclose(
        spectrometer.wavelengths_m, np.linspace(773.365e-9, 776.635e-9, 101), rtol=1e-12
    )


# --- against the simulated instrument ---------------------------------------------------------


def test_a_sweep_reads_the_plant(shaper, spectrometer, plant):
    spectrometer.start()
    shaper.load(np.zeros(20), np.zeros(20))
    power = spectrometer.measure()
    np.testing.assert_allclose(power, np.linspace(0, 1e-6, 101), rtol=1e-6)
    np.testing.assert_allclose(plant.axes[-1], spectrometer.wavelengths_m, rtol=1e-8)
    spectrometer.measure()
    assert plant.axes[-1] is plant.axes[-2]


def test_start_mends_whatever_state_the_instrument_is_in(spectrometer, rig):
    session = rig.instruments["spectrometer"].connect()
    session.receive(b'OPEN "anonymous"\r\n\r\n')
    session.receive(b":FORM:DATA ASC;:DISP:TRAC:Y1:SPAC LOG;:INIT:SMOD REP;:SENS:SWE:POIN 501\r\n")
    session.receive(b":NONSENSE\r\n")
    spectrometer.start()
    assert spectrometer.measure().shape == (101,)
    assert session.receive(b":FORM?;:DISP:TRAC:Y1:SPAC?;:CAL:ZERO?\r\n") == b"REAL,32;1;0\r\n"


def test_a_setting_that_is_not_taken_is_refused(spectrometer, rig):
    rig.inject("spectrometer", Fault.REFUSE, on=":SENSe:SWEep:POINts 101")
    with pytest.raises(InstrumentRefused, match="settings: -200"):
        spectrometer.start()


@pytest.mark.parametrize(
    ("query", "answer", "error", "named"),
    [
        ("WAVELENGTH:STOP?", "+1.0E-006", InstrumentRefused, "set to 7.76635e-07 but is 1e-06"),
        ("SWEEP:POINTS?", "1001", InstrumentRefused, "sample_number: set to 101 but is 1001"),
        ("WAVELENGTH:STOP?", "what?", ProtocolError, "wavelength_stop: unexpected answer"),
        ("SENSE?", "77", ProtocolError, "sensitivity: unexpected answer"),
    ],
)
def test_settings_are_verified_by_reading_them_back(spectrometer, rig, query, answer, error, named):
    handlers = rig.instruments["spectrometer"]._device._handlers
    handlers.override(f"SENSE:{query}", lambda _: answer)
    with pytest.raises(error, match=f"spectrometer: .*{named}"):
        spectrometer.start()


TRACE = ":TRACe:Y?"
STATUS = ":CONDition?"


@pytest.mark.parametrize(
    ("fault", "on", "error"),
    [
        (Fault.TIMEOUT, TRACE, InstrumentTimeout),
        (Fault.TIMEOUT, STATUS, InstrumentTimeout),
        (Fault.GARBAGE, TRACE, ProtocolError),
        (Fault.GARBAGE, STATUS, ProtocolError),
        (Fault.TRUNCATE, TRACE, ProtocolError),
        (Fault.TRUNCATE, ":SYSTem:ERRor?", InstrumentTimeout),
        (Fault.REFUSE, ":INITiate", InstrumentRefused),
    ],
)
def test_each_fault_is_one_clear_error_and_the_next_call_is_in_step(
    shaper, spectrometer, rig, plant, fault, on, error
):
    spectrometer.start()
    shaper.load(np.zeros(20), np.zeros(20))
    rig.inject("spectrometer", fault, on=on)
    with pytest.raises(error, match="spectrometer: ") as caught:
        spectrometer.measure()
    assert caught.value.instrument == "spectrometer"
    plant.full_scale_w = 5e-7  # an old trace would be told from the new one
    np.testing.assert_allclose(spectrometer.measure(), np.linspace(0, 5e-7, 101), rtol=1e-6)
    assert spectrometer.identify() == IDENTITY


def test_several_late_answers_in_a_row_are_all_discarded(spectrometer, rig):
    spectrometer.start()
    for on in (":CONDition?", "*ESE?", "*ESE?"):
        rig.inject("spectrometer", Fault.TIMEOUT, on=on)
    for _ in range(3):
        with pytest.raises(InstrumentTimeout):
            spectrometer.measure()
    assert spectrometer.identify() == IDENTITY
    assert spectrometer.sample_number == 101


def test_after_a_lost_connection_only_start_goes_on(spectrometer, rig):
    spectrometer.start()
    rig.inject("spectrometer", Fault.DROP)
    with pytest.raises(ConnectionLost, match="spectrometer: :INITiate:IMMediate"):
        spectrometer.measure()
    with pytest.raises(ConnectionLost, match="start it again"):
        spectrometer.measure()
    spectrometer.start()
    assert spectrometer.measure().shape == (101,)


def test_a_lost_connection_can_still_be_shut_down_and_closed(spectrometer, rig):
    spectrometer.start()
    rig.inject("spectrometer", Fault.DROP)
    with pytest.raises(ConnectionLost):
        spectrometer.identify()
    spectrometer.shutdown()
    spectrometer.close()


class DeadAdapter(Adapter):
    """A connection that is gone, of a kind that cannot be opened again."""

    def _write(self, command, **kwargs):
        raise VisaIOError(StatusCode.error_connection_lost)


def test_an_adapter_that_cannot_reopen_says_so():
    osa = YokogawaAQ6370(DeadAdapter(), "osa")
    with pytest.raises(ConnectionLost, match="osa: OPEN"):
        osa.identify()
    with pytest.raises(ConnectionLost, match="cannot be reopened"):
        osa.start()


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.GARBAGE])
@pytest.mark.parametrize("on", ["OPEN", "secret"])
def test_a_login_that_fails_is_begun_anew(make_spectrometer, rig, fault, on):
    osa = make_spectrometer(password="secret")
    rig.inject("spectrometer", fault, on=on)
    with pytest.raises((InstrumentTimeout, ProtocolError)):
        osa.start()
    osa.start()


def test_a_user_that_is_not_known(make_spectrometer):
    osa = make_spectrometer(user="nobody")
    with pytest.raises(InstrumentTimeout, match='OPEN "nobody"'):
        osa.identify()


def test_another_instrument_at_the_address(spectrometer, rig):
    rig.inject("spectrometer", Fault.IDENTITY)
    with pytest.raises(IdentityError, match="OTHER,OSA 1,0,0"):
        spectrometer.start()
    spectrometer.start()


def test_an_interrupt_between_command_and_answer_is_cured(plant, monkeypatch):
    adapter = FirmwareAdapter(AQ6370Firmware(plant.spectrum))
    osa = YokogawaAQ6370(adapter, "osa", points=101)
    osa.start()
    expected = osa.measure()
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "read", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            osa.measure()
    np.testing.assert_array_equal(osa.measure(), expected)


def test_a_real_sweep_time_is_polled(plant):
    now = [0.0]

    def clock():
        now[0] += 0.06
        return now[0]

    firmware = AQ6370Firmware(plant.spectrum, sweep_time_s=0.25, clock=clock)
    osa = YokogawaAQ6370(FirmwareAdapter(firmware), "osa", points=101)
    osa.start()
    assert osa.measure().shape == (101,)
    assert now[0] == pytest.approx(0.06 * 6)
    assert firmware.sweeps == 1


def test_a_zero_keeps_the_analyser_busy_for_its_time(plant):
    now = [0.0]

    def clock():
        now[0] += 5.0
        return now[0]

    firmware = AQ6370Firmware(plant.spectrum, zero_time_s=30.0, clock=clock)
    osa = YokogawaAQ6370(FirmwareAdapter(firmware), "osa", points=101)
    osa.start()
    begin = now[0]
    osa.zero()
    assert now[0] - begin >= 30.0
    assert firmware.zeros == 1
    assert osa.automatic_zero is False
    assert osa.measure().shape == (101,)


@pytest.mark.parametrize("every_s", [0.0, -1.0, float("nan")])
def test_an_impossible_time_between_zeros_is_refused(plant, every_s):
    with pytest.raises(LimitError, match=r"osa: zero_every_s: .* is not above 0 s"):
        YokogawaAQ6370(FirmwareAdapter(AQ6370Firmware(plant.spectrum)), "osa", zero_every_s=every_s)


@pytest.mark.parametrize("operation", ["measure", "zero"])
def test_abort_from_another_thread_stops_what_runs(plant, operation):
    firmware = AQ6370Firmware(plant.spectrum, sweep_time_s=1e9, zero_time_s=1e9)
    osa = YokogawaAQ6370(FirmwareAdapter(firmware), "osa", points=101)
    osa.start()
    caught = []

    def run():
        try:
            getattr(osa, operation)()
        except Aborted as aborted:
            caught.append(str(aborted))

    other = threading.Thread(target=run)
    other.start()
    while firmware.sweeps + firmware.zeros == 0:
        pass  # it has not begun yet
    osa.abort()
    osa.shutdown()  # waits until the other has the instrument no more
    other.join()
    assert caught == [f"osa: {'sweep' if operation == 'measure' else 'zero'}: aborted"]
    session = firmware.connect()
    session.receive(b'OPEN "anonymous"\r\n\r\n')
    assert session.receive(b":STAT:OPER:COND?;:CAL:ZERO:STAT?\r\n") == b"1;0\r\n"  # stopped
    osa.start()
    assert osa.identify() == IDENTITY


def test_one_thread_measures_at_a_time(plant):
    firmware = AQ6370Firmware(plant.spectrum, sweep_time_s=0.01)
    osa = YokogawaAQ6370(FirmwareAdapter(firmware), "osa", points=101)
    osa.start()
    plant.transmission = np.ones(1)
    found = []
    threads = [threading.Thread(target=lambda: found.append(osa.measure())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == firmware.sweeps == 4
    for power in found:
        np.testing.assert_allclose(power, np.linspace(0, 1e-6, 101), rtol=1e-6)


def test_the_far_end_counts_what_is_out_of_the_drivers_limits(plant):
    firmware = AQ6370Firmware(plant.spectrum)
    with YokogawaAQ6370(FirmwareAdapter(firmware), "osa") as osa:
        osa.start()
        osa.measure()
        assert firmware.out_of_limits == 0
        for command in (
            ":SENS:WAV:STAR 599NM",  # the analyser takes it, the driver would not
            ":SENS:WAV:STOP 2300NM",
            ":SENS:SWE:POIN 100",
        ):
            osa.write(command)
        assert firmware.out_of_limits == 3

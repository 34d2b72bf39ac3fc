"""USB-1208HS-4AO: the calls it makes, row by row; limits, waveforms, faults, the safe state."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drivers.circuits.mcc import MccUsb1208HS
from drivers.circuits.mcc_board import BoardError, ScanStatus, Side, UldaqBoard
from drivers.errors import (
    ConnectionLost,
    DriverError,
    InstrumentRefused,
    InstrumentTimeout,
    LimitError,
    ProtocolError,
)
from drivers.mock.faults import Fault
from drivers.mock.firmware.mcc import MccFirmware
from drivers.transport import open_board


class RecordingBoard:
    """A board that writes down every call, and answers each row with its negative."""

    identity = "USB-1208HS-4AO 01A2B3C4"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.played: list[Any] = []
        self.answer = np.zeros(0)

    def set_trigger(self, samples: int) -> None:
        self.calls.append(("set_trigger", samples))

    def a_in_scan(self, channel: int, samples: int, rate_hz: float) -> Any:
        self.calls.append(("a_in_scan", channel, samples, rate_hz))
        self.answer = np.zeros(samples)
        return self.answer

    def a_out_scan(self, volts: Any, rate_hz: float) -> None:
        self.calls.append(("a_out_scan", volts.shape, rate_hz))
        self.played.append(volts.copy())

    def scan_wait(self, side: Side, timeout_s: float) -> None:
        self.calls.append(("scan_wait", str(side), round(timeout_s, 6)))

    def scan_status(self, side: Side) -> ScanStatus:
        self.calls.append(("scan_status", str(side)))
        return ScanStatus(False, len(self.answer))

    def scan_stop(self, side: Side) -> None:
        self.calls.append(("scan_stop", str(side)))

    def reopen(self) -> None:
        self.calls.append(("reopen",))

    def close(self) -> None:
        self.calls.append(("close",))


SAFE = [
    ("scan_stop", "input"),
    ("scan_stop", "output"),
    ("a_out_scan", (16, 2), 1e6),
    ("scan_wait", "output", 0.5),
]


@pytest.fixture
def board() -> RecordingBoard:
    return RecordingBoard()


@pytest.fixture
def daq(board: RecordingBoard) -> MccUsb1208HS:
    return MccUsb1208HS(board, samples=4, gap_samples=3, buffer_samples=20, timeout_s=2.0)


def test_a_waveform_is_these_calls(daq, board):
    daq.acquire(np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    assert board.calls == [
        ("set_trigger", 4),
        ("a_in_scan", 0, 8, 1e6),
        ("a_out_scan", (14, 2), 1e6),
        ("scan_wait", "output", 0.5),
        ("scan_wait", "input", 0.5),
        ("scan_status", "input"),
    ]
    drive, trigger = board.played[0].T
    assert drive.tolist() == [1, 2, 3, 4, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0]
    assert trigger.tolist() == [5, 5, 0, 0, 0, 0, 0] * 2


def test_start_and_shutdown_are_these_calls(daq, board):
    daq.start()
    assert board.calls[:4] == SAFE
    assert board.calls[4:7] == [
        ("set_trigger", 4),
        ("a_in_scan", 0, 4, 1e6),
        ("a_out_scan", (7, 2), 1e6),
    ]
    assert not any(volts[:, 0].any() for volts in board.played)
    board.calls.clear()
    daq.shutdown()
    assert board.calls == SAFE
    assert not board.played[-1].any()


def test_rows_are_cut_into_as_many_waveforms_as_the_buffer_needs(make_daq, plant):
    drive = np.random.default_rng(0).uniform(-10, 10, (8, 8))
    with make_daq() as daq:
        assert daq.rows_at_once == 3
        response = daq.acquire(drive)
        assert [len(rows) for rows in plant.drives] == [3, 3, 2]
        np.testing.assert_array_equal(np.concatenate(plant.drives), drive)
        np.testing.assert_array_equal(response, drive / 2 + 1)


def test_no_rows_are_no_waveform(daq, board):
    assert daq.acquire(np.empty((0, 4))).shape == (0, 4)
    assert board.calls == []


@pytest.mark.parametrize(
    ("drive", "message"),
    [
        ([[0, 0, 0, 10.01]], r"drive: 10.01 V at index \[0, 3\] is outside \[-10, 10\] V"),
        ([[0, 0, 0, float("nan")]], "drive: nan V"),
        ([[0, 0, 0]], "shape"),
        ([0, 0, 0, 0], "is not \\(rows, 4\\)"),
    ],
)
def test_limits_are_refused_before_the_first_call(daq, board, drive, message):
    """Also where only the last of many rows is at fault."""
    good = np.zeros((9, 4)).tolist() if np.shape(drive) == (1, 4) else []
    with pytest.raises(LimitError, match=message.replace("[0, 3\\]", "[9, 3\\]")) as caught:
        daq.acquire(good + drive)
    assert caught.value.instrument == "daq"
    assert board.calls == []


def test_the_bench_may_narrow_the_drive_and_never_widen_it(board):
    daq = MccUsb1208HS(board, samples=4, drive=(-2.0, 2.0))
    with pytest.raises(LimitError, match=r"outside \[-2, 2\] V"):
        daq.acquire(np.full((1, 4), 2.5))
    with pytest.raises(ValueError, match="wider"):
        MccUsb1208HS(board, drive=(-11.0, 2.0))
    with pytest.raises(ValueError, match="leaves out 0 V"):
        MccUsb1208HS(board, drive=(1.0, 2.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate_hz": 1.1e6}, "rate: 1.1e\\+06 is outside .* Hz"),
        ({"samples": 1}, "samples"),
        ({"gap_samples": 0}, "samples"),
        ({"buffer_samples": 999}, r"buffer: 999 is outside \[1000, "),
        ({"buffer_samples": 2**24 + 1}, "buffer"),
    ],
)
def test_impossible_waveforms_are_refused(board, settings, message):
    with pytest.raises(LimitError, match=message):
        MccUsb1208HS(board, **settings)


@pytest.mark.parametrize(
    ("fault", "on", "kind"),
    [
        (Fault.TIMEOUT, "scan_wait output", InstrumentTimeout),
        (Fault.TIMEOUT, "scan_wait input", InstrumentTimeout),
        (Fault.DROP, "a_out_scan", ConnectionLost),
        (Fault.REFUSE, "a_in_scan", InstrumentRefused),
        (Fault.REFUSE, "set_trigger", InstrumentRefused),
        (Fault.REFUSE, "scan_status", InstrumentRefused),
        (Fault.GARBAGE, "a_in_scan", ProtocolError),
        (Fault.TRUNCATE, "a_in_scan", ProtocolError),
    ],
)
def test_a_fault_in_a_waveform_ends_at_0_v_and_start_recovers(
    make_daq, rig, plant, fault, on, kind
):
    firmware = rig.instruments["daq"]
    daq = make_daq()
    daq.start()
    firmware.play(np.full((4, 2), 3.0), 1e6)  # whatever was there before
    before = plant.forgotten
    rig.inject("daq", fault, on)
    with pytest.raises(kind, match=r"^daq: "):
        daq.acquire(np.ones((2, 8)))
    if fault is not Fault.DROP:  # what cannot be reached cannot be brought to 0 V
        assert firmware.outputs_v == (0.0, 0.0)
        assert plant.forgotten > before
    daq.start()
    assert firmware.outputs_v == (0.0, 0.0)
    np.testing.assert_array_equal(daq.acquire(np.ones((2, 8))), np.full((2, 8), 1.5))
    daq.close()


def test_close_leaves_0_v_even_after_a_stray_voltage(make_daq, rig):
    firmware = rig.instruments["daq"]
    with make_daq():
        firmware.play(np.full((4, 2), 3.0), 1e6)
        assert firmware.outputs_v == (3.0, 3.0)
    assert firmware.outputs_v == (0.0, 0.0)


def test_a_missing_trigger_wire_is_told(make_daq, rig, monkeypatch):
    monkeypatch.setattr(rig.instruments["daq"], "_take_bursts", lambda *_: None)
    with pytest.raises(InstrumentTimeout, match="is AO1 wired to TRIG"):
        make_daq().start()


def test_a_waveform_takes_its_time_where_times_are_honoured(plant):
    board, slept = MccFirmware(plant, honour_times=True), []
    board.play(np.zeros((2000, 2)), 1e6)
    board.wait(Side.OUTPUT, slept.append)
    assert slept == [0.002]


# --- the real board, with a stand-in for the vendor's library -----------------------------------


class LibraryError(Exception):
    def __init__(self, code: int) -> None:
        self.error_code, self.error_message = code, "operation timed out"


class Half:
    """The stand-in's AiDevice or AoDevice."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self._name, self._calls = name, calls

    def __getattr__(self, call: str) -> Any:
        def record(*arguments: Any) -> Any:
            self._calls.append((f"{self._name}.{call}", *arguments))
            if arguments[-1:] == (0.5,):  # of scan_wait
                raise LibraryError(20)
            return (1, SimpleNamespace(current_scan_count=7))

        return record


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    calls: list[Any] = []
    boards = [SimpleNamespace(product_name="USB-1208HS-4AO", unique_id=i) for i in ("A1", "B2")]
    device = SimpleNamespace(
        connect=lambda: calls.append(("connect",)),
        disconnect=lambda: calls.append(("disconnect",)),
        release=lambda: calls.append(("release",)),
        is_connected=lambda: True,
        get_ai_device=lambda: Half("ai", calls),
        get_ao_device=lambda: Half("ao", calls),
    )
    module = SimpleNamespace(
        ULException=LibraryError,
        InterfaceType=SimpleNamespace(USB="usb"),
        AiInputMode=SimpleNamespace(DIFFERENTIAL="differential"),
        Range=SimpleNamespace(BIP10VOLTS="+-10 V"),
        ScanOption=SimpleNamespace(DEFAULTIO=0, EXTTRIGGER=4, RETRIGGER=64),
        ScanStatus=SimpleNamespace(RUNNING=1),
        TriggerType=SimpleNamespace(POS_EDGE="rising"),
        WaitType=SimpleNamespace(WAIT_UNTIL_DONE="done"),
        AInScanFlag=SimpleNamespace(DEFAULT=0),
        AOutScanFlag=SimpleNamespace(DEFAULT=0),
        get_daq_device_inventory=lambda interface: boards,
        DaqDevice=lambda descriptor: device,
        create_float_buffer=lambda channels, samples: bytearray(8 * channels * samples),
        calls=calls,
    )
    monkeypatch.setitem(sys.modules, "uldaq", module)
    return module


def test_the_real_board_makes_the_librarys_calls(library):
    board = open_board("mcc://B2", {})
    assert board.identity == "USB-1208HS-4AO B2"
    board.set_trigger(208)
    buffer = board.a_in_scan(0, 3, 1e6)
    board.a_out_scan(np.array([[1.0, 5.0], [2.0, 0.0]]), 1e6)
    board.scan_wait(Side.OUTPUT, 2.0)
    assert board.scan_status(Side.INPUT) == ScanStatus(True, 7)
    board.scan_stop(Side.INPUT)
    names = [call[0] for call in library.calls]
    assert names[:4] == ["connect", "ai.set_trigger", "ai.a_in_scan", "ao.a_out_scan"]
    assert names[4:] == ["ao.scan_wait", "ai.get_scan_status", "ai.scan_stop"]
    assert library.calls[1][1:] == ("rising", 0, 0.0, 0.0, 208)
    assert library.calls[2][1:-1] == (0, 0, "differential", "+-10 V", 3, 1e6, 68, 0)
    assert library.calls[3][1:-1] == (0, 1, "+-10 V", 2, 1e6, 0, 0)
    assert np.frombuffer(library.calls[3][-1]).tolist() == [1, 5, 2, 0]
    assert library.calls[4][1:] == ("done", 2.0)
    np.frombuffer(library.calls[2][-1])[:] = [1, 2, 3]  # as the library fills it
    assert buffer.tolist() == [1, 2, 3]
    for _ in range(2):
        board.close()
    assert library.calls[-2:] == [("disconnect",), ("release",)]


def test_the_librarys_errors_keep_code_and_words(library):
    with pytest.raises(BoardError, match="error 20, operation timed out"):
        UldaqBoard("A1").scan_wait(Side.INPUT, 0.5)


def test_the_board_must_be_told_apart(library):
    with pytest.raises(ConnectionLost, match=r"2 boards have the id ''.*A1, .*B2"):
        open_board("mcc://", {})
    with pytest.raises(ConnectionLost, match="0 boards have the id 'C3'"):
        open_board("mcc://C3", {})


def test_without_the_vendors_library_the_bench_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uldaq", None)
    with pytest.raises(ValueError, match=r"mcc://A1: needs `pip install pnnlab\[mcc\]`"):
        open_board("mcc://A1", {})


def test_addresses_that_name_no_board_are_refused(rig):
    with pytest.raises(ValueError, match="not an mcc:// or mock:// address"):
        open_board("http://192.168.1.20", {})
    with pytest.raises(ValueError, match="no data acquisition board"):
        open_board("mock://optics/shaper", {"optics": rig})


def test_every_error_is_a_driver_error_with_the_bench_files_name(make_daq, rig):
    daq = make_daq(name="input-output")
    daq.start()
    rig.inject("daq", Fault.REFUSE)
    with pytest.raises(DriverError, match=r"^input-output: set_trigger: error 35, internal error"):
        daq.acquire(np.zeros((1, 8)))

"""Nothing is driven unless the interlock's contact reads OK."""

import threading
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.errors import Aborted, ConnectionLost, InstrumentTimeout, ProtocolError
from drivers.interlock import ScpiInterlock
from drivers.mock.faults import Fault
from drivers.mock.firmware.interlock import InterlockFirmware
from drivers.mock.visa import FirmwareAdapter
from drivers.transport import open_rigs, open_visa
from far_end import LIMIT_S, FarEnd
from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.errors import ConfigError, LabError, NotPermitted
from lab.interlock import WatchedInterlock
from lab.measurement import ForwardPass

ROOT = Path(__file__).parents[3]
CIRCUIT = load_bench(ROOT / "bench-circuit.toml")


def with_interlock(**keys: Any) -> BenchConfig:
    address = f"mock://{next(iter(CIRCUIT.rigs))}/interlock"
    plain = CIRCUIT.model_dump(exclude_unset=True)
    return BenchConfig.model_validate({**plain, "interlock": {"address": address, **keys}})


def firmware(bench: Bench) -> InterlockFirmware:
    found = bench.rigs[next(iter(CIRCUIT.rigs))].instruments["interlock"]
    assert isinstance(found, InterlockFirmware)
    return found


def row(bench: Bench) -> Any:
    d = bench.system("circuit").description
    return bench.system("circuit").transform(*(np.zeros((1, *s.shape)) for s in (d.x, d.theta))).y


class RecordingWire:
    """A session with a contact, and what was sent to it."""

    def __init__(self, firmware: InterlockFirmware) -> None:
        self.firmware, self.sent = firmware, bytearray()

    def connect(self) -> Any:
        session = self.firmware.connect()
        receive = session.receive

        def recording(data: bytes) -> bytes:
            self.sent.extend(data)
            return receive(data)

        session.receive = recording  # type: ignore[method-assign]
        return session


@pytest.fixture
def contact() -> InterlockFirmware:
    return InterlockFirmware()


@pytest.fixture
def wire(contact: InterlockFirmware) -> RecordingWire:
    return RecordingWire(contact)


@pytest.fixture
def interlock(wire: RecordingWire) -> Iterator[ScpiInterlock]:
    interlock = ScpiInterlock(FirmwareAdapter(wire))
    yield interlock
    interlock.close()


def test_it_asks_exactly_this(interlock, wire, contact) -> None:
    assert interlock.is_ok()
    assert wire.sent == b"DIG:PIN:DIR IN,DIO0_P\r\nDIG:PIN? DIO0_P\r\n"
    contact.closed = False
    assert not interlock.is_ok()
    assert wire.sent.endswith(b"DIO0_P\r\nDIG:PIN? DIO0_P\r\n")


def test_a_pin_of_the_board_that_drives_the_circuit_serves_too() -> None:
    rigs = open_rigs({"circuit": load_bench(ROOT / "bench-redpitaya.toml").rigs["circuit"]})
    board = rigs["circuit"].instruments["redpitaya"]
    interlock = ScpiInterlock(open_visa("mock://circuit/redpitaya", rigs, timeout_s=1.0))
    assert not interlock.is_ok()
    board.pins["DIO0_P"] = 1  # type: ignore[attr-defined]
    assert interlock.is_ok()
    interlock.close()


def test_a_contact_may_be_ok_at_0(contact) -> None:
    interlock = ScpiInterlock(FirmwareAdapter(contact), ok=0)
    assert not interlock.is_ok()
    contact.closed = False
    assert interlock.is_ok()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.DROP, ConnectionLost),
        (Fault.TIMEOUT, InstrumentTimeout),
        (Fault.GARBAGE, ProtocolError),
    ],
)
def test_what_cannot_be_read_is_an_error(interlock, contact, fault, kind) -> None:
    contact.inject(fault, "PIN?")
    with pytest.raises(kind, match=r"^interlock: DIG:PIN"):
        interlock.is_ok()


def watched(contact: InterlockFirmware, clock: Any) -> WatchedInterlock:
    return WatchedInterlock(lambda: ScpiInterlock(FirmwareAdapter(contact)), 600.0, clock=clock)


def test_a_reading_is_good_for_an_interval(contact) -> None:
    times = [0.0]
    with watched(contact, lambda: times[0]) as permit:
        permit.check()
        times[0] = 600.0
        permit.check()
        assert contact.reads == 1
        contact.closed = False
        times[0] = 600.1
        with pytest.raises(NotPermitted, match="the interlock is open"):
            permit.check()


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.TIMEOUT, Fault.GARBAGE, Fault.REFUSE])
def test_a_reading_that_fails_is_not_ok_and_the_next_connects_anew(contact, fault) -> None:
    times = [0.0]
    with watched(contact, lambda: times[0]) as permit:
        contact.inject(fault, "PIN?")
        times[0] = 601.0
        with pytest.raises(NotPermitted, match="cannot be read: interlock: "):
            permit.check()
        with pytest.raises(NotPermitted):  # it stays so
            permit.check()
        permit.rearm()
        permit.check()


def test_it_is_withdrawn_until_it_is_ok_and_re_armed(contact) -> None:
    times, heard = [0.0], []
    contact.closed = False
    with watched(contact, lambda: times[0]) as permit:
        permit.listen(lambda error: heard.append(str(error)))
        assert heard == ["the interlock is open: its contact says so"]
        with pytest.raises(NotPermitted):
            permit.rearm()
        contact.closed = True
        with pytest.raises(NotPermitted):
            permit.check()
        permit.rearm()
        permit.check()


def test_a_bench_is_not_even_started_against_it(monkeypatch) -> None:
    monkeypatch.setattr(InterlockFirmware, "_read", lambda *_: "0")
    with pytest.raises(NotPermitted, match="open"), open_bench(with_interlock()):
        pytest.fail("it was opened")


def test_in_a_notebook_it_is_watched_and_the_bench_made_safe_while_idle() -> None:
    with open_bench(with_interlock(interval_s=0.05)) as bench:
        row(bench)
        safe, heard = threading.Event(), threading.Event()
        daq = bench.system("circuit").instruments[0]
        shutdown = daq.shutdown
        daq.shutdown = lambda: (shutdown(), safe.set())  # type: ignore[method-assign]
        bench.protection.listen(lambda _: heard.set())
        firmware(bench).closed = False
        assert heard.wait(LIMIT_S)
        assert safe.wait(LIMIT_S)
        with pytest.raises(NotPermitted, match="the interlock is open"):
            row(bench)
        firmware(bench).closed = True
        bench.protection.rearm()
        with pytest.raises(Aborted):  # what was aborted has to be started again
            row(bench)
        bench.system("circuit").start()
        row(bench)


async def test_in_a_service_it_faults_every_system_until_it_is_closed_and_re_armed() -> None:
    with open_bench(with_interlock(interval_s=0.05), start=False) as bench:
        d = bench.system("circuit").description
        rows = ForwardPass("circuit", np.zeros((1, *d.x.shape)), np.zeros((1, *d.theta.shape)))
        async with bench.scheduler() as scheduler:
            await scheduler.submit(rows)
            firmware(bench).closed = False
            error = None
            while error is None:
                _, error = await attempt(scheduler.submit(rows))
            assert "the interlock is open" in str(error)
            with pytest.raises(NotPermitted):
                await scheduler.recover("circuit")
            assert scheduler.status("circuit").state == "faulted"
            assert "the interlock is open" in scheduler.status("circuit").reason
            firmware(bench).closed = True
            await scheduler.recover("circuit")
            await scheduler.submit(rows)


def test_one_that_opens_while_a_filter_settles_aborts_that_and_the_light_is_blocked(
    far_end: FarEnd, tmp_path: Path
) -> None:
    plain = far_end.bench().model_dump(exclude_unset=True)
    plain["instruments"]["shaper"]["row_time_s"] = 1000.0
    plain["rigs"] = {"contacts": {"plant": "circuit"}}
    plain["interlock"] = {"address": "mock://contacts/interlock", "interval_s": 0.05}
    bench_config = BenchConfig.model_validate(plain)
    with open_bench(bench_config, guard_log=tmp_path / "log") as bench:
        errors: list[Exception] = []

        def settle() -> None:
            try:
                bench.system("lamp").transform(np.zeros((1, 1)), np.zeros((1, 1)))
            except NotPermitted as error:
                errors.append(error)

        thread = threading.Thread(target=settle)
        thread.start()
        far_end.wait_until(blocked=False)
        bench.rigs["contacts"].instruments["interlock"].closed = False  # type: ignore[attr-defined]
        far_end.wait_until(blocked=True)
        thread.join(LIMIT_S)
        contact = "DIO0_P at mock://contacts/interlock does not read 1"
        assert [str(error) for error in errors] == [f"the interlock is open: {contact}"]


def test_what_a_crash_left_lit_is_dark_after_a_start_that_is_not_permitted(
    far_end: FarEnd, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(InterlockFirmware, "_read", lambda *_: "0")
    plain = far_end.bench().model_dump(exclude_unset=True)
    plain["rigs"] = {"contacts": {"plant": "circuit"}}
    plain["interlock"] = {"address": "mock://contacts/interlock"}
    far_end.light()
    with (
        pytest.raises(NotPermitted, match="open"),
        open_bench(BenchConfig.model_validate(plain), guard_log=tmp_path / "log"),
    ):
        pytest.fail("it was opened")
    assert far_end.state()["blocked"]


async def attempt(passed: Awaitable[Any]) -> tuple[Any, Exception | None]:
    try:
        return await passed, None
    except LabError as error:
        return None, error


def test_an_address_that_does_not_exist_is_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"interlock: mock://nowhere/interlock: no rig 'nowhere'"),
        open_bench(with_interlock(address="mock://nowhere/interlock")),
    ):
        pytest.fail("it was opened")

"""Simulated instruments on real sockets: what any client sees, and what goes wrong on the wire."""

import http.client
import json
import socket
import urllib.request
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import pyvisa

from drivers.errors import ConnectionLost, DriverError, IdentityError, InstrumentTimeout
from drivers.mock.faults import AnyFault, Fault, FaultOrder, PlantFault, WireFault
from drivers.mock.mcc import MccFirmware
from drivers.mock.rig import Rig, circuit_rig, optical_rig, plate_rig
from drivers.mock.serve.admin import state_of
from drivers.mock.serve.sockets import Served
from drivers.mock.serve.web import BODY_BYTES
from drivers.transport import open_http, open_visa
from drivers.waveshaper import WaveShaperA
from drivers.wsp import format_profile
from drivers.yokogawa import YokogawaAQ6370
from served import served

SHAPER, SPECTROMETER, DAQ = (
    "mock://optics/shaper",
    "mock://optics/spectrometer",
    "mock://optics/daq",
)
LIMIT_S = 10.0  # nothing here lasts so long unless it hangs
SHORT_S = 0.2  # how long drivers wait for answers that do not come


@pytest.fixture
def there(plant) -> Iterator[tuple[Served, Rig]]:
    rig = optical_rig(plant)
    rig.instruments["daq"] = MccFirmware(plant)
    with served({"optics": rig}, [SHAPER, SPECTROMETER, DAQ]) as served_there:
        yield served_there, rig


@pytest.fixture
def url(there) -> str:
    return there[0].addresses[SHAPER]


@pytest.fixture
def visa_address(there) -> str:
    return there[0].addresses[SPECTROMETER]


def port_of(address: str) -> int:
    return int(address.split(":")[-1] if address.startswith("http") else address.split("::")[2])


def connected(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(address)), timeout=LIMIT_S)


def send_for_ever(line: socket.socket) -> None:
    while True:
        line.sendall(bytes(1 << 16))


def test_every_instrument_has_an_address_but_those_without_a_network_wire(there):
    addresses = there[0].addresses
    assert list(addresses) == [SHAPER, SPECTROMETER, DAQ]
    assert addresses[SHAPER].startswith("http://127.0.0.1:")
    assert addresses[SPECTROMETER].startswith("TCPIP0::127.0.0.1::")
    assert addresses[DAQ] is None
    ports = {port_of(addresses[SHAPER]), port_of(addresses[SPECTROMETER]), port_of(there[0].admin)}
    assert len(ports) == 3


# --- with no code of ours ---------------------------------------------------------------------


def test_plain_pyvisa_logs_in_identifies_and_reads_a_trace(visa_address):
    manager = pyvisa.ResourceManager("@py")
    analyser = manager.open_resource(visa_address)
    try:
        analyser.read_termination = analyser.write_termination = "\r\n"
        analyser.timeout = 1000 * LIMIT_S
        assert analyser.query('OPEN "anonymous"') == "AUTHENTICATE CRAM-MD5."
        assert analyser.query("") == "READY"
        assert analyser.query("*IDN?").split(",")[:2] == ["YOKOGAWA", "AQ6370D"]
        analyser.write(":SENS:WAV:STAR 773NM;STOP 777NM;:SENS:SWE:POIN 101;:INIT")
        assert analyser.query(":STAT:OPER:COND?") == "1"
        levels = analyser.query_ascii_values(":TRAC:Y? TRA")
        axis = analyser.query_ascii_values(":TRACE:X? TRA")
        assert len(levels) == 101
        assert max(levels) == -210.0  # dBm: nothing reaches it
        np.testing.assert_allclose(axis, np.linspace(773e-9, 777e-9, 101))
        assert analyser.query("SYST:ERR?") == '0,"No error"'
    finally:
        analyser.close()
        manager.close()


def test_plain_pyvisa_plays_and_reads_a_waveform_and_asks_the_interlock(plant):
    board, contact = "mock://circuit/redpitaya", "mock://circuit/interlock"
    with served({"circuit": circuit_rig(plant)}, [board, contact]) as there:
        manager = pyvisa.ResourceManager("@py")
        ends = {"read_termination": "\r\n", "write_termination": "\r\n", "timeout": 1000 * LIMIT_S}
        daq = manager.open_resource(there.addresses[board], **ends)
        interlock = manager.open_resource(there.addresses[contact], **ends)
        try:
            assert daq.query("*IDN?").startswith("REDPITAYA,INSTR")
            for command in (
                "GEN:RST;:ACQ:RST",
                "SOUR1:FUNC ARBITRARY;FREQ:FIX 61.03515625",
                "SOUR1:BURS:STAT BURST;NCYC 1;NOR 1",
                "SOUR1:VOLT 1",
                f"SOUR1:TRAC:DATA:DATA {','.join(['0.5'] * 16_384)}",
                "ACQ:DEC 125;:ACQ:TRIG:DLY 8192;:ACQ:DATA:FORMAT ASCII;UNITS VOLTS",
                "ACQ:START;:ACQ:TRIG AWG_PE",
                "OUTPUT1:STATE ON",
                "SOUR1:TRIG:INT",
            ):
                daq.write(command)
            assert daq.query("ACQ:TRIG:STAT?") == "TD"
            read = np.array(daq.query("ACQ:SOUR1:DATA?").strip("{}").split(","), dtype=float)
            assert daq.query("SYST:ERR?") == '0,"No error"'
            assert interlock.query("DIG:PIN? DIO0_P") == "1"
        finally:
            daq.close()
            interlock.close()
            manager.close()
    # an amplifier of 10 before the plant, which halves and adds 1 V, and a probe of 1:10 behind
    np.testing.assert_allclose(read, (0.5 * 10 / 2 + 1) / 10, atol=1e-3)


PROFILE = format_profile(193.1 + 0.001 * np.arange(20), np.full(20, 10.0), np.zeros(20), 1)


def test_plain_httpx_loads_a_profile_and_reads_it_back(url, plant):
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/waveshaper/devinfo").json()["model"] == "WaveShaper 1000A"
        request = {"type": "wsp", "wsp": PROFILE}
        assert client.post("/waveshaper/loadprofile", json=request).json()["rc"] == 0
        assert client.get("/waveshaper/getprofile").text == PROFILE
        assert client.get("/elsewhere").status_code == 404
        assert client.head("/waveshaper/devinfo").status_code == 404
        assert client.post("/waveshaper/loadprofile", content=iter([b"{", b"}"])).json()["rc"] != 0
    assert abs(plant.transmission[0]) == pytest.approx(10**-0.5)


def test_plain_urllib_blocks_the_light(url, plant):
    body = json.dumps({"type": "blockall", "port": 1}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/waveshaper/loadprofile", body, timeout=LIMIT_S) as answer:
        assert json.load(answer)["rc"] == 0
    assert not plant.transmission.any()


# --- connections ------------------------------------------------------------------------------


def test_each_connection_logs_in_by_itself(visa_address):
    with connected(visa_address) as one, connected(visa_address) as other:
        one.sendall(b'OPEN "anonymous"\r\n')
        assert one.recv(99) == b"AUTHENTICATE CRAM-MD5.\r\n"
        other.sendall(b"*OPC?\r\n")  # not logged in: no answer
        one.sendall(b"\r\n")
        assert one.recv(99) == b"READY\r\n"
        one.sendall(b"*OP")
        one.sendall(b"C?\r\n")
        assert one.recv(99) == b"1\r\n"
        other.sendall(b'OPEN "anonymous"\r\n')
        assert other.recv(99) == b"AUTHENTICATE CRAM-MD5.\r\n"
        one.shutdown(socket.SHUT_WR)
        assert one.recv(99) == b""


def test_requests_of_one_connection_are_answered_in_order(url):
    get = b"GET /waveshaper/%s HTTP/1.1\r\nHost: shaper\r\n\r\n"
    with connected(url) as line:
        line.sendall(get % b"devinfo" + get % b"nothing")
        received = b""
        while b"not found" not in received:
            received += line.recv(4096)
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.count(b"HTTP/1.1 404 Not Found\r\n") == 1
        line.sendall(get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"devinfo")
        received = b""
        while chunk := line.recv(4096):
            received += chunk
        assert b"portcount" in received


def test_a_client_may_wait_for_the_permission_to_go_on(url):
    head = b"POST /waveshaper/loadprofile HTTP/1.1\r\nHost: shaper\r\nExpect: 100-continue\r\n"
    with connected(url) as line:
        line.sendall(head + b"Content-Length: 2\r\n\r\n")
        assert line.recv(99).startswith(b"HTTP/1.1 100 ")
        line.sendall(b"{}")
        assert b"malformed" in line.recv(4096)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NOT HTTP AT ALL\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_told_so_and_closed(url, request_, status):
    with connected(url) as line:
        line.sendall(request_)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        assert answer.status == status
        answer.close()
    assert httpx.get(f"{url}/waveshaper/devinfo", trust_env=False).status_code == 200


def test_a_body_without_end_is_refused(url):
    head = b"POST /waveshaper/loadprofile HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with connected(url) as line:
        line.sendall(head % (2 * BODY_BYTES))
        with pytest.raises(OSError, match=r"reset|pipe"):  # by and by; the rest is not read
            send_for_ever(line)


def test_the_end_resets_who_is_connected(plant):
    rig = optical_rig(plant)
    with served({"optics": rig}, [SPECTROMETER]) as there:
        line = connected(there.addresses[SPECTROMETER])
        line.sendall(b'OPEN "anonymous"\r\n')
        assert line.recv(99)
    with line, pytest.raises(ConnectionResetError):
        line.recv(99)
    with pytest.raises(ConnectionRefusedError):
        connected(there.addresses[SPECTROMETER])


def test_an_address_that_names_nothing(plant):
    with (
        pytest.raises(ValueError, match=r"mock://optics/scope: no such instrument .*spectrometer"),
        served({"optics": optical_rig(plant)}, ["mock://optics/scope"]),
    ):
        pass


# --- faults, through our drivers, in memory and on sockets --------------------------------------


class Drivers:
    """The two drivers before one rig, in memory or on sockets, and how to arm its faults."""

    def __init__(self, rig: Rig, shaper: WaveShaperA, spectrometer: YokogawaAQ6370) -> None:
        self.rig, self.shaper, self.spectrometer = rig, shaper, spectrometer
        shaper.start()
        spectrometer.start()

    def arm(self, instrument: str, fault: AnyFault, on: str = "", **how: float) -> None:
        self.rig.arm(FaultOrder(instrument, fault, on, **how))

    def row(self, attenuation_db: float = 0.0) -> np.ndarray:
        self.shaper.load(np.full(20, attenuation_db), np.zeros(20))
        return self.spectrometer.measure()


@pytest.fixture(params=["memory", "sockets"])
def drivers(request) -> Iterator[Drivers]:
    rig = request.getfixturevalue("there")[1]
    at = {SHAPER: SHAPER, SPECTROMETER: SPECTROMETER}
    if request.param == "sockets":
        at = request.getfixturevalue("there")[0].addresses
    client = open_http(at[SHAPER], {"optics": rig}, timeout_s=SHORT_S)
    adapter = open_visa(at[SPECTROMETER], {"optics": rig}, timeout_s=SHORT_S)
    axis = {"start_nm": 773.365, "stop_nm": 776.635, "points": 101, "full_scale_w": 1.6e-6}
    with (
        WaveShaperA(client, lines=20, settling_time_s=0, expect_idn="WaveShaper") as shaper,
        YokogawaAQ6370(adapter, "osa", expect_idn="YOKOGAWA", **axis) as spectrometer,
    ):
        yield Drivers(rig, shaper, spectrometer)


WIRE = [
    ("shaper", Fault.DROP, ConnectionLost),
    ("shaper", Fault.TIMEOUT, InstrumentTimeout),
    ("shaper", Fault.GARBAGE, DriverError),
    ("shaper", Fault.TRUNCATE, DriverError),
    ("shaper", Fault.REFUSE, DriverError),
    ("shaper", WireFault.STALL, InstrumentTimeout),
    ("shaper", WireFault.DELAY, InstrumentTimeout),
    ("spectrometer", Fault.DROP, DriverError),
    ("spectrometer", Fault.TIMEOUT, InstrumentTimeout),
    ("spectrometer", Fault.GARBAGE, DriverError),
    ("spectrometer", Fault.TRUNCATE, DriverError),
    ("spectrometer", Fault.REFUSE, DriverError),
    ("spectrometer", WireFault.STALL, DriverError),
    ("spectrometer", WireFault.DELAY, InstrumentTimeout),
]


@pytest.mark.parametrize(("instrument", "fault", "error"), WIRE)
def test_each_fault_is_one_clear_error_and_start_recovers(drivers, instrument, fault, error):
    expected = drivers.row()
    drivers.arm(instrument, fault, "loadprofile" if instrument == "shaper" else "", delay_s=0.5)
    with pytest.raises(error) as caught:
        drivers.row()
    device = getattr(drivers, instrument)
    assert caught.value.instrument == device.name
    device.start()
    np.testing.assert_array_equal(drivers.row(), expected)


def test_an_answer_that_is_late_but_not_too_late_is_taken(drivers):
    expected = drivers.row()
    drivers.arm("shaper", WireFault.DELAY, delay_s=0.01)
    drivers.arm("spectrometer", WireFault.DELAY, delay_s=0.01, times=3)
    np.testing.assert_array_equal(drivers.row(), expected)


def test_another_instrument_at_the_address(drivers):
    for instrument in ("shaper", "spectrometer"):
        drivers.arm(instrument, Fault.IDENTITY)
        with pytest.raises(IdentityError):
            getattr(drivers, instrument).start()


def test_a_fault_may_last(drivers):
    drivers.arm("shaper", Fault.REFUSE, "loadprofile", times=2)
    for _ in range(2):
        with pytest.raises(DriverError):
            drivers.row()
    assert drivers.row().any()
    drivers.arm("shaper", Fault.REFUSE, times=2)
    drivers.arm("spectrometer", WireFault.STALL)
    drivers.arm("spectrometer", PlantFault.SATURATION)
    drivers.rig.clear_faults()
    assert drivers.row().max() < drivers.spectrometer.power.high


def test_what_is_read_goes_wrong(drivers):
    bright = drivers.row()
    drivers.arm("spectrometer", PlantFault.STUCK, times=2)
    for _ in range(2):
        np.testing.assert_array_equal(drivers.row(20.0), bright)
    dark = drivers.row(20.0)
    assert dark.max() < bright.max()
    drivers.arm("spectrometer", PlantFault.SATURATION)
    np.testing.assert_array_equal(drivers.row(), drivers.spectrometer.power.high)
    drivers.arm("spectrometer", PlantFault.DEAD_PIXEL, pixel=50)
    np.testing.assert_array_equal(drivers.row(), np.where(np.arange(101) == 50, 0.0, bright))
    drivers.arm("spectrometer", PlantFault.DRIFT_BURST, burst=0.25)
    np.testing.assert_allclose(drivers.row(), 0.75 * bright, rtol=1e-6)
    np.testing.assert_array_equal(drivers.row(), bright)


def test_faults_that_an_instrument_cannot_have(there):
    rig = there[1]
    for order, named in (
        (FaultOrder("shaper", PlantFault.STUCK), "'shaper' reads nothing"),
        (FaultOrder("daq", WireFault.STALL), "'daq' has no network wire"),
        (FaultOrder("scope", Fault.DROP), "no instrument 'scope'"),
    ):
        with pytest.raises(ValueError, match=named):
            rig.arm(order)


class Slow:
    """Firmware whose answers are held back, by as long as it is asked for."""

    held_back_s = 0.0

    def connect(self):
        return Slow()

    def receive(self, data):
        self.held_back_s = float(data)
        return data

    def close(self):
        pass


def test_an_instrument_that_takes_its_time_keeps_nobody_else_waiting(plant):
    rig = Rig(plant, {"slow": Slow()})
    with served({"optics": rig}, ["mock://optics/slow"]) as there:
        address = there.addresses["mock://optics/slow"]
        with connected(address) as one, connected(address) as other:
            one.sendall(b"600\n")
            other.sendall(b"0.01\n")
            assert other.recv(99) == b"0.01\n"
            one.settimeout(SHORT_S)
            with pytest.raises(TimeoutError):
                one.recv(99)


def test_a_stalled_instrument_reads_no_more(there, visa_address):
    there[1].inject("spectrometer", WireFault.STALL)
    with connected(visa_address) as line:
        line.settimeout(SHORT_S)
        with pytest.raises(TimeoutError):  # when every buffer on the way is full
            send_for_ever(line)


def test_a_dropped_connection_is_reset(there, visa_address):
    there[1].inject("spectrometer", Fault.DROP, "*OPC?")
    with connected(visa_address) as line:
        line.sendall(b'OPEN "anonymous"\r\n\r\n*OPC?\r\n')
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: line.recv(99), b""))


@pytest.mark.parametrize(
    ("rig", "instrument"),
    [
        (optical_rig, "shaper"),
        (optical_rig, "slm"),
        (optical_rig, "spectrometer"),
        (optical_rig, "ocean"),
        (optical_rig, "interlock"),
        (circuit_rig, "daq"),
        (circuit_rig, "redpitaya"),
        (plate_rig, "audio"),
    ],
)
def test_every_simulated_instrument_counts_knows_its_safe_state_and_forgets_faults(
    plant, echo, rig, instrument
):
    simulated = rig(echo if rig is plate_rig else plant)
    state = state_of(simulated.instruments[instrument])
    assert (state["out_of_limits"], state["safe"]) == (0, True)
    for fault in Fault:
        simulated.inject(instrument, fault)
    simulated.instruments[instrument].clear_faults()


# --- the admin interface ------------------------------------------------------------------------


@pytest.fixture
def admin(there) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=there[0].admin, trust_env=False) as client:
        yield client


def test_the_admin_interface_counts(admin, url):
    assert admin.get("/healthz").json() == {"status": "ok", "rigs": ["optics"]}
    shaper = {"blocked": True, "safe": True, "profiles_loaded": 0, "out_of_limits": 0}
    assert shaper.items() <= admin.get("/rigs/optics").json()["shaper"].items()
    loud = PROFILE.replace("10.0000", "61.0000", 3)
    body = {"type": "wsp", "wsp": loud}
    httpx.post(f"{url}/waveshaper/loadprofile", json=body, trust_env=False)
    states = admin.get("/rigs/optics").json()
    shaper = {"blocked": False, "safe": False, "profiles_loaded": 1, "out_of_limits": 3}
    assert shaper.items() <= states["shaper"].items()
    assert states["spectrometer"]["sweeps"] == 0
    assert states["spectrometer"]["safe"] is True
    assert states["daq"]["outputs_v"] == [0.0, 0.0]


def test_the_admin_interface_arms_faults(admin, url, there):
    order = {"instrument": "shaper", "fault": "refuse", "times": 5}
    assert admin.post("/rigs/optics/faults", json=order).status_code == 200
    devinfo = f"{url}/waveshaper/devinfo"
    assert httpx.get(devinfo, trust_env=False).json()["rc"] == -1
    assert admin.delete("/rigs/optics/faults").status_code == 200
    assert httpx.get(devinfo, trust_env=False).json()["rc"] == 0


def test_the_admin_interface_opens_the_interlock(admin):
    for closed in (False, True):
        assert admin.put("/rigs/optics/interlock", json={"closed": closed}).status_code == 200
        assert admin.get("/rigs/optics").json()["interlock"]["closed"] is closed
    answer = admin.put("/rigs/optics/interlock", json={"closed": 0})
    assert answer.json() == {"detail": "closed: true or false is needed"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("GET", "/", "", 404, "rigs: optics"),
        ("GET", "/rigs/plate", "", 404, "rigs: optics"),
        ("PUT", "/rigs/optics/keys", "{}", 404, "no PUT"),
        ("POST", "/rigs/optics/keys", "{", 400, "Expecting"),
        ("POST", "/rigs/optics/keys", "[]", 400, "an object is needed"),
        ("POST", "/rigs/optics/keys", "{}", 400, "keys: a list"),
        ("POST", "/rigs/optics/keys", '{"keys": [[1, 2]]}', 400, "not enough values"),
        ("POST", "/rigs/optics/keys", '{"keys": 3}', 400, "keys: a list"),
        ("POST", "/rigs/optics/faults", "{}", 400, "instrument: a text"),
    ],
)
def test_requests_that_mean_nothing(admin, method, path, body, status, named):
    answer = admin.request(method, path, content=body)
    assert answer.status_code == status
    assert named in answer.json()["detail"]

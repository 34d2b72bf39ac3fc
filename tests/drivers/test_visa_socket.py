"""VISA over real TCP sockets: every failure ends in time, says what it was, and can be left."""

import socket
import threading
from contextlib import suppress

import numpy as np
import pytest
import pyvisa
from hypothesis import given, settings
from hypothesis import strategies as st
from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError
from pyvisa_py.sessions import Session
from pyvisa_py.tcpip import TCPIPSocketSession

from drivers.errors import ConnectionLost, DriverError, InstrumentTimeout, ProtocolError
from drivers.mock.faults import Fault
from drivers.mock.firmware.scpi import ScpiDevice, ScpiSession
from drivers.mock.visa import FirmwareAdapter
from drivers.wires import visa_socket
from drivers.wires.scpi import ScpiLink
from drivers.wires.visa_socket import SocketAdapter

DATA = bytes(range(256)) * 40 + b"\r\n\n"  # longer than what is received ahead of a block
BLOCK = b"#510243" + DATA


class Peer:
    """The far end: each connection is answered by the next of `behaviours`, then by the last."""

    def __init__(self):
        self.behaviours = []
        self.done = threading.Event()
        self._ends = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._ends[0].getsockname()[1]
        self.address = f"TCPIP0::127.0.0.1::{self.port}::SOCKET"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                line, _ = self._ends[0].accept()
            except OSError:
                return
            self._ends.append(line)
            behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
            self._threads.append(threading.Thread(target=self._serve, args=(behave, line)))
            self._threads[-1].start()

    def _serve(self, behave, line):
        with line, suppress(OSError):  # the host has gone, or the test is over
            behave(line)

    def stop(self):
        self.done.set()
        for end in self._ends:
            with suppress(OSError):  # not connected, or no more
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.stop()


class Instrument:
    """A SCPI instrument with a block to read and a line to echo; a behaviour of a Peer."""

    def __init__(self):
        self.device = ScpiDevice(
            "MAKER,MODEL,1,1",
            {
                ":ECHO?": lambda arguments: arguments[0],
                ":BLOCK?": lambda _: BLOCK,
                ":LONG?": lambda _: BLOCK + b"\r\nmore",
                ":UNTERMINATED?": lambda _: BLOCK + b"more",
            },
        )
        self.heard = []

    def connect(self):
        return ScpiSession(self.device, login=False)

    def __call__(self, line):
        session = self.connect()
        while data := line.recv(65_536):
            self.heard.append(data)
            line.sendall(session.receive(data))


def closing(line):
    line.recv(100)


def silent(line):
    while line.recv(65_536):
        pass


def open_link(peer, timeout_s=0.3):
    adapter = SocketAdapter(peer.address, timeout_s, "\r\n")
    return ScpiLink(adapter, "osa", None, "", "\r\n"), adapter


@pytest.fixture(params=["fast", "stock"])
def path(request, monkeypatch):
    """Run a test with the cured session and with the one that another version would keep."""
    if request.param == "stock":
        monkeypatch.setattr(visa_socket, "version", lambda _: "0.9.0")
    return request.param


# --- what works -------------------------------------------------------------------------------


def test_lines_and_blocks_arrive_whole(peer, path):
    peer.behaviours = [Instrument()]
    link, adapter = open_link(peer, 2.0)
    assert adapter.fast == (path == "fast")
    for _ in range(3):
        assert link.ask("*IDN?") == "MAKER,MODEL,1,1"
        block = link.ask_block(":BLOCK?", len(DATA))
        assert bytes(block) == DATA
        assert np.frombuffer(block, np.uint8).flags.writeable  # the caller's own, not a copy
    link.close()


def test_a_block_is_sent_as_one_message(peer, path):
    heard = bytearray()

    def listen(line):
        while not heard.endswith(b"*OPC?\r\n"):
            heard.extend(line.recv(65_536))
        line.sendall(b"1\r\n")
        silent(line)

    peer.behaviours = [listen]
    link, _ = open_link(peer, 2.0)
    values = np.arange(30_000, dtype=">f4")
    link.write_block(":SOUR1:TRAC:DATA:DATA", values)
    link.write_block(":EMPTY", b"")
    assert link.ask("*OPC?") == "1"
    expected = b":SOUR1:TRAC:DATA:DATA #6120000" + values.tobytes() + b"\r\n:EMPTY #10\r\n*OPC?\r\n"
    assert bytes(heard) == expected
    link.close()


def keep(line):
    """Keep the block that comes after DATA; answer it to BACK?."""
    reader = line.makefile("rb")
    kept = b""
    while word := reader.read(5):
        if word == b"BACK?":
            reader.readline()
            line.sendall(kept)
        else:
            head = reader.read(2)
            head += reader.read(int(head[1:]))
            kept = head + reader.read(int(head[2:]) + 2)


@pytest.fixture(scope="module")
def keeper():
    peer = Peer()
    peer.behaviours = [keep]
    link, _ = open_link(peer, 2.0)
    yield link
    link.close()
    peer.stop()


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=20_000) | st.sampled_from([b"\r\n" * 5000, b"#19\n"]))
def test_any_bytes_go_there_and_back(keeper, data):
    keeper.write_block("DATA", data)
    assert bytes(keeper.ask_block("BACK?", len(data))) == data


def test_pyvisa_itself_works_on_the_cured_session(peer):
    peer.behaviours = [Instrument()]
    _, adapter = open_link(peer)
    plain = adapter.connection
    assert plain.query("*IDN?") == "MAKER,MODEL,1,1"
    assert plain.query_binary_values(":BLOCK?", "B", container=bytes) == DATA
    plain.write(":ECHO? 1;:ECHO? 2")
    assert adapter.read_bytes(100, break_on_termchar=True) == b"1;2\r\n"
    with pytest.raises(VisaIOError) as silence:
        plain.read()
    assert silence.value.error_code == StatusCode.error_timeout
    plain.write(":ECHO? 3")
    assert adapter.read_bytes(-1) == b"3\r\n"
    plain.write(":ECHO? 4")
    while not adapter.unread():
        pass
    adapter.flush_read_buffer()
    assert plain.query(":ECHO? 5") == "5"
    adapter.close()


def test_visa_timeouts_of_none_and_for_ever(peer):
    peer.behaviours = [Instrument()]
    _, adapter = open_link(peer)
    adapter.connection.timeout = None
    assert adapter.connection.query(":ECHO? 1") == "1"
    adapter.connection.timeout = 0
    with pytest.raises(VisaIOError):
        adapter.connection.read()
    adapter.close()


def test_sessions_of_others_stay_as_they_are(peer):
    peer.behaviours = [Instrument()]
    link, adapter = open_link(peer)
    others = pyvisa.ResourceManager("@py").open_resource(peer.address)
    assert type(adapter.manager.visalib.sessions[others.session]) is TCPIPSocketSession
    assert TCPIPSocketSession in Session._session_classes.values()
    others.close()
    link.close()


def test_the_simulated_end_offers_what_the_real_one_does():
    for name in ("read_head", "read_into", "write_parts", "unread", "reopen"):
        assert callable(getattr(SocketAdapter, name))
        assert callable(getattr(FirmwareAdapter, name))


@pytest.mark.parametrize("timeout_s", [0, -1, 2.1, float("nan")])
def test_no_call_may_wait_longer_than_two_seconds(timeout_s):
    with pytest.raises(ValueError, match=r"timeout_s .* is outside \(0, 2\] s"):
        SocketAdapter("TCPIP0::127.0.0.1::1::SOCKET", timeout_s, "\n")


class Babbler(FirmwareAdapter):
    """An instrument that says something of its own before it answers."""

    babble = b""

    def _write_bytes(self, content, **kwargs):
        self._received += self.babble
        super()._write_bytes(content, **kwargs)


@settings(max_examples=200, deadline=None)
@given(babble=st.binary(min_size=1, max_size=50).filter(lambda b: not any(48 <= c < 58 for c in b)))
def test_whatever_comes_between_is_an_error_or_nothing(babble):
    adapter = Babbler(Instrument(), "\r\n")
    link = ScpiLink(adapter, "osa", None, "", "\r\n")
    for query, ask in ((":ECHO? 1", link.ask), (":BLOCK?", lambda q: link.ask_block(q, len(DATA)))):
        adapter.babble = babble
        with suppress(DriverError):
            answer = ask(query)
            assert not isinstance(answer, str) or answer != "2"
        adapter.babble = b""
        assert link.ask(":ECHO? 2") == "2"
        assert bytes(link.ask_block(":BLOCK?", len(DATA))) == DATA


# --- two threads ------------------------------------------------------------------------------


def test_two_threads_get_their_own_answers(peer):
    peer.behaviours = [Instrument()]
    link, _ = open_link(peer, 2.0)
    wrong = []

    def ask(first):
        for i in range(first, first + 1000):
            if link.ask(f":ECHO? {i}") != str(i):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(n,)) for n in (10_000, 20_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    link.close()


def test_a_transaction_keeps_others_off_the_instrument(peer):
    instrument = Instrument()
    peer.behaviours = [instrument]
    link, _ = open_link(peer, 2.0)
    started = threading.Event()

    def interfere():
        started.set()
        link.ask(":ECHO? 2")

    other = threading.Thread(target=interfere)
    with link.transaction():
        link.write(":ECHO? 1")
        other.start()
        started.wait()
        assert link.read() == "1"
        assert link.ask(":ECHO? 3") == "3"
    other.join()
    assert b"".join(instrument.heard) == b":ECHO? 1\r\n:ECHO? 3\r\n:ECHO? 2\r\n"
    link.close()


# --- what fails, and how it goes on -----------------------------------------------------------


def test_a_closed_port_is_seen_when_it_is_opened(path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = f"TCPIP0::127.0.0.1::{port}::SOCKET"
    with pytest.raises(ConnectionLost, match=f"{address}: cannot be opened: .*refused"):
        SocketAdapter(address, 2.0, "\n")


def unreachable(session):
    session.interface = socket.socket()
    return StatusCode.error_timeout


def test_a_host_that_does_not_answer_is_no_bare_exception(monkeypatch):
    monkeypatch.setattr(TCPIPSocketSession, "_connect", unreachable)
    with pytest.raises(ConnectionLost, match="cannot be opened: could not connect"):
        SocketAdapter("TCPIP0::127.0.0.1::1::SOCKET", 0.1, "\n")


def test_a_closed_peer_ends_in_time_without_the_cure_too(peer, path):
    peer.behaviours = [closing, Instrument()]
    link, _ = open_link(peer)
    with pytest.raises((ConnectionLost, InstrumentTimeout), match=r"osa: \*IDN\?: "):
        link.ask("*IDN?")
    works_again(link)


def works_again(link):
    link.recover()
    assert link.ask("*IDN?") == "MAKER,MODEL,1,1"
    assert bytes(link.ask_block(":BLOCK?", len(DATA))) == DATA
    link.close()


def test_a_peer_that_closes_is_a_lost_connection_and_no_timeout(peer):
    peer.behaviours = [closing, Instrument()]
    link, _ = open_link(peer, 2.0)
    with pytest.raises(ConnectionLost, match=r"osa: \*IDN\?: "):
        link.ask("*IDN?")
    with pytest.raises(ConnectionLost, match=r"osa: \*IDN\?: .*start it again"):
        link.ask("*IDN?")
    works_again(link)


def test_a_connection_that_cannot_be_made_again_is_made_later(peer, monkeypatch):
    peer.behaviours = [closing, Instrument()]
    link, _ = open_link(peer, 2.0)
    with pytest.raises(ConnectionLost):
        link.ask("*IDN?")
    with monkeypatch.context() as patch:
        patch.setattr(TCPIPSocketSession, "_connect", unreachable)
        for _ in range(2):
            with pytest.raises(ConnectionLost, match=r"osa: TCPIP0::.*cannot be opened"):
                link.recover()
    works_again(link)


def test_a_peer_that_closed_between_two_commands_is_seen_before_the_next_one(peer):
    peer.behaviours = [lambda line: line.sendall(b""), Instrument()]
    link, adapter = open_link(peer, 2.0)
    while not adapter.unread():
        pass  # the end of the connection has not arrived yet
    with pytest.raises(ConnectionLost, match=r"osa: "):
        link.ask("*IDN?")
    works_again(link)


def test_a_peer_that_closes_within_a_block(peer):
    def break_off(line):
        line.recv(100)
        line.sendall(BLOCK[:-100])

    peer.behaviours = [break_off, Instrument()]
    link, _ = open_link(peer, 2.0)
    with pytest.raises(ConnectionLost, match=r"osa: :BLOCK\?: "):
        link.ask_block(":BLOCK?", len(DATA))
    works_again(link)


@pytest.mark.parametrize("asked", ["*IDN?", ":BLOCK?"])
def test_a_peer_that_stalls_while_we_read(peer, path, asked):
    peer.behaviours = [silent, Instrument()]
    link, _ = open_link(peer)
    ask = link.ask if asked == "*IDN?" else lambda query: link.ask_block(query, len(DATA))
    with pytest.raises(InstrumentTimeout, match=r"osa: .*: no answer within 0\.3 s"):
        ask(asked)
    works_again(link)


@pytest.mark.parametrize("start", [b"", b"#", BLOCK[:7], BLOCK[:9000]])
def test_a_peer_that_trickles_does_not_stretch_the_timeout(peer, start):
    def trickle(line):
        line.recv(100)
        line.sendall(start)
        while not peer.done.wait(0.02):
            line.sendall(b"0")

    peer.behaviours = [trickle, Instrument()]
    link, _ = open_link(peer)
    ask = (lambda query: link.ask_block(query, len(DATA))) if start else link.ask
    with pytest.raises((InstrumentTimeout, ProtocolError), match=r"osa: :BLOCK\?"):
        ask(":BLOCK?")
    works_again(link)


def test_a_peer_that_stalls_while_we_write(peer, path):
    peer.behaviours = [lambda _: peer.done.wait(), Instrument()]
    link, _ = open_link(peer)
    with pytest.raises(InstrumentTimeout, match=r"osa: :DATA: not taken within 0\.3 s"):
        link.write_block(":DATA", np.zeros(60_000_000, np.uint8))
    with pytest.raises(ConnectionLost, match="start it again"):
        link.ask("*IDN?")
    works_again(link)


def test_a_slow_peer_that_takes_all_in_time_gets_all(peer):
    size = 12_000_000
    heard = []

    def take_slowly(line):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        total = 0
        while total < size + len(b":DATA #812000000\r\n"):
            total += len(line.recv(65_536))
        heard.append(total)
        line.sendall(b"1\r\n")
        silent(line)

    peer.behaviours = [take_slowly]
    link, _ = open_link(peer, 2.0)
    link.write_block(":DATA", np.zeros(size, np.uint8))
    assert link.read() == "1"
    assert heard == [size + len(b":DATA #812000000\r\n")]
    link.close()


@pytest.mark.parametrize(
    ("query", "length", "fault", "named"),
    [
        (":BLOCK?", len(DATA), Fault.TRUNCATE, "stops early"),
        (":BLOCK?", len(DATA) - 1, None, "announced, not"),
        (":BLOCK?", len(DATA), Fault.GARBAGE, "instead of a data block"),
        (":ECHO? 17", 4, None, "answered b'17' instead of a data block"),
        (":UNTERMINATED?", len(DATA), None, "is not terminated"),
        (":LONG?", len(DATA), None, "more than the block"),
    ],
)
def test_a_wrong_block_is_told_and_the_next_command_works(peer, path, query, length, fault, named):
    instrument = Instrument()
    peer.behaviours = [instrument]
    link, _ = open_link(peer)
    if fault:
        instrument.device.inject(fault, on=query)
    with pytest.raises(ProtocolError, match=f"osa: {query[:3]}.*{named}"):
        link.ask_block(query, length)
    assert link.ask(":ECHO? 42") == "42"
    assert bytes(link.ask_block(":BLOCK?", len(DATA))) == DATA
    assert link.ask("*IDN?") == "MAKER,MODEL,1,1"
    link.close()


def test_what_arrives_unasked_is_not_taken_for_an_answer(peer, path):
    instrument = Instrument()

    def babble(line):
        line.sendall(b"booted\r\n")
        instrument(line)

    peer.behaviours = [babble]
    link, adapter = open_link(peer)
    while not adapter.unread():
        pass  # the greeting has not arrived yet
    assert link.ask(":ECHO? 42") == "42"
    link.write(":ECHO? 43")
    while not adapter.unread():
        pass
    assert link.ask(":ECHO? 44") == "44"
    link.close()

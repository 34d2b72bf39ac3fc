"""The client where it shares a system: its name, full queues, deadlines, reservations."""

import getpass
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import lab.client.systems
import lab.held_reservation
from lab.client import Client, client_name
from lab.errors import (
    ConfigError,
    Conflict,
    DeadlineMissed,
    LabError,
    QueueFull,
    ReservationLost,
    UnknownName,
)
from server.app import create_app

ROW = {"x": np.full((1, 50), 0.5), "theta": np.zeros((1, 50))}


# --- the client's name ----------------------------------------------------------------------


def test_a_client_is_its_user_at_its_host_unless_it_says_otherwise(monkeypatch):
    monkeypatch.delenv("PNNLAB_CLIENT", raising=False)
    monkeypatch.setattr(getpass, "getuser", lambda: "jürgen")
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-pc")
    with Client() as client:
        assert client.name == "j?rgen@lab-pc"
    monkeypatch.setenv("PNNLAB_CLIENT", "ann")
    assert client_name() == "ann"
    with Client(name="bob") as client:
        assert client.name == "bob"


def test_a_user_without_a_name_has_one(monkeypatch):
    def nobody() -> str:
        raise OSError("no such user")

    monkeypatch.delenv("PNNLAB_CLIENT", raising=False)
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert client_name().startswith("unknown@")


@pytest.mark.parametrize("name", ["jürgen", "a\nb"])
def test_a_name_that_no_header_can_carry_is_refused(name):
    with pytest.raises(ConfigError, match="printable ASCII"):
        Client(name=name)


# --- full queues and deadlines --------------------------------------------------------------


@pytest.fixture
def narrow(reconfigured, tmp_path, serve_in_thread, gate):
    """Return a client where one pass may wait, and the threads of two that fill the queue."""
    app = create_app(reconfigured(max_waiting_per_client=1), data_dir=tmp_path)
    with serve_in_thread(app) as url, Client(url) as client:

        def measure() -> None:
            with Client(url) as other:
                other.measure("optics", **ROW)

        threads = [threading.Thread(target=measure) for _ in range(2)]
        for count, thread in enumerate(threads, start=1):
            thread.start()
            while len(client.queue("optics")["passes"]) != count:
                pass
        yield client
        gate.go_on.set()
        for thread in threads:
            thread.join()


def test_a_full_queue_is_waited_for(narrow, gate, monkeypatch):
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        gate.go_on.set()
        while narrow.queue("optics")["passes"]:
            pass

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(lab.client.systems, "time", clock)
    assert narrow.measure("optics", **ROW)["shots"].tolist() == [2]
    assert waits == [1.0]


def test_patience_ends(narrow, monkeypatch):
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(
        lab.client.systems, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    )
    says = "the most that a client may have; try again in 1 s"
    with pytest.raises(QueueFull, match=says) as full:
        narrow.measure("optics", **ROW, patience_s=5.0)
    assert now == 5.0
    assert full.value.retry_after_s == 1.0
    with pytest.raises(QueueFull):
        narrow.measure("optics", **ROW, patience_s=0)
    assert now == 5.0


def test_a_missed_deadline_is_its_error(client):
    with pytest.raises(DeadlineMissed, match="its deadline has passed"):
        client.measure("optics", **ROW, deadline_s=1.0)


# --- reservations ---------------------------------------------------------------------------


def test_a_reserved_system_is_its_owners_until_the_end_of_the_block(client):
    with client.reserve("optics", ttl_s=60) as held:
        assert held.system == "optics"
        assert client.system("optics")["status"]["reservation"]["owner"] == "tests"
        assert len(client.measure("optics", **ROW, reservation=held.number)["y"]) == 1
        client.set_calibration("optics", "new", held.number)
        with pytest.raises(Conflict, match="optics is reserved by tests"):
            client.reserve("optics", owner="bob")
    status = client.system("optics")["status"]
    assert (status["reservation"], status["calibration"]) == (None, "new")
    assert client.measure("optics", **ROW)["calibration"] == "new"
    with pytest.raises(ReservationLost):
        client.heartbeat("optics", held.number)
    with pytest.raises(UnknownName, match="has no reservation"):
        client.release("optics", held.number + 1)


def test_an_error_in_the_block_releases_the_system_too(client):
    with pytest.raises(ZeroDivisionError), client.reserve("optics"):
        _ = 1 / 0
    assert client.system("optics")["status"]["reservation"] is None


def test_heartbeats_keep_a_reservation_alive(client, monkeypatch):
    monkeypatch.setattr(lab.held_reservation, "_BEATS_PER_TTL", 1e6)
    with client.reserve("optics", ttl_s=60) as held:
        first = held.granted["expires_s"]
        seen = {first}
        while len(seen) < 4:
            seen.add(client.system("optics")["status"]["reservation"]["expires_s"])
    assert min(seen) == first


def test_a_lost_reservation_is_an_error_at_its_next_use(client, monkeypatch):
    monkeypatch.setattr(lab.held_reservation, "_BEATS_PER_TTL", 1e6)
    held = client.reserve("optics", ttl_s=60)
    held.__enter__()
    client.release("optics", held.number)
    with pytest.raises(ReservationLost, match="has ended"):
        held.wait()
    with pytest.raises(ReservationLost, match="has ended"):
        _ = held.number
    with pytest.raises(ReservationLost, match="has ended"):
        held.__exit__(None, None, None)


def test_another_error_is_not_hidden_by_a_lost_reservation(client):

    def fail(number: int) -> None:
        client.release("optics", number)
        _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as failed, client.reserve("optics") as held:
        fail(held.number)
    [note] = failed.value.__notes__
    assert note.startswith("releasing optics: reservation")


def test_a_heartbeat_that_fails_is_sent_again_while_it_can_help(monkeypatch):
    """A service that answers nothing for less than ttl_s loses nobody's reservation."""
    sent: list[float] = []
    now = 0.0

    class Away:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def heartbeat(self, system, number):
            nonlocal now
            sent.append(now)
            now += 10.0
            if len(sent) > 2:  # the first is that of the block's begin
                raise LabError("no answer")

        def release(self, system, number):
            raise AssertionError("it is lost")

    monkeypatch.setattr(lab.held_reservation, "_BEATS_PER_TTL", 1e6)
    monkeypatch.setattr(lab.held_reservation, "time", SimpleNamespace(monotonic=lambda: now))
    granted = {"system": "optics", "number": 7, "ttl_s": 30.0}
    reservation = lab.held_reservation.HeldReservation(granted, Away)
    with pytest.raises(ReservationLost, match="no answer"), reservation as held:
        held.wait()
    # the last success was sent at 10 s; at 40 s it is not over yet, at 50 s it is
    assert sent == [0.0, 10.0, 20.0, 30.0, 40.0]


def test_a_time_to_live_out_of_range_is_refused(client):
    with pytest.raises(ConfigError, match="ttl_s: "):
        client.reserve("optics", ttl_s=0.5)

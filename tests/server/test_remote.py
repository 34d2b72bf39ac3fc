"""A training on another machine: through the service's REST API, and bit for bit as beside it."""

import functools
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import driving
import lab.remote
import lab.tries
from drivers.errors import InstrumentTimeout, LimitError
from drivers.row_key import row_keys
from drivers.spec import Array, ArraySpec
from forwarder import Forwarder
from lab.apparatus import Apparatus, open_apparatus
from lab.bench import open_bench
from lab.calls import ServiceError
from lab.client import Client
from lab.config import TrainConfig, TwinConfig
from lab.datasets import Dataset
from lab.errors import ConfigError, DeadlineMissed, PassCancelled, UnknownName
from lab.network_config import Linear, NetworkConfig
from lab.remote import RemoteRun, remote_apparatus
from lab.remote_answers import read_system
from lab.scheduling.scheduler import HardwareScheduler
from lab.scheduling.status import SystemStatus
from lab.systems.base import SystemDescription
from lab.train_result import TrainResult
from lab.trainer import train
from lab.twins import FittedTwin, fit_stream, fit_system_twin
from server.app import create_app
from server.views import SystemView
from twins.fitting import FitSettings, TwinError
from twins.optics import OpticsTwin

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
SECRET = "correct-horse-battery-staple"


def blobs() -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = np.clip(0.2 + 0.3 * labels[:, None] + 0.05 * rng.standard_normal((30, 4)), 0, 1)
    return Dataset("blobs", features, labels, ("a", "b", "c"), None, "generated")


def small_training(apparatus: Apparatus, **changes: Any) -> TrainResult:
    """20 samples in batches of 8 through two layers, steps in two parts that measure at once."""
    network = NetworkConfig(layers=2, after=(Linear(),))
    values = {"epochs": 1, "batch": 8, "network": network, "micro_batches": 2, **changes}
    error = TwinError(r2=0.5, normalised=0.3, shape_r2=0.4)
    fitted = FittedTwin(OpticsTwin(), "structured", "optics", 0, 0, 0, 0.0, error, None)
    return train(TrainConfig.model_validate(values), blobs(), fitted, apparatus)


def assert_same(ours: TrainResult, others: TrainResult) -> None:
    a, b = ours.network_state, others.network_state
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (ours.test_accuracy, ours.ledger) == (others.test_accuracy, others.ledger)


def rows(count: int, stream: int = 3) -> tuple[Array, Array, list[Any]]:
    rng = np.random.default_rng(stream)
    x, theta = rng.uniform(-0.5, 1, (2, count, 50))
    return x, theta, row_keys(stream, 5, count, 0.75)


@functools.cache
def measured_here(count: int, stream: int) -> Array:
    with open_bench(ROOT / "bench.toml") as bench:
        return bench.system("optics").transform(*rows(count, stream)).y


def test_a_training_and_a_fit_end_with_the_same_bits_as_beside_the_instruments(
    bench, tmp_path, serve_in_thread
):
    fit = functools.partial(fit_system_twin, TwinConfig(rows=150), settings=FitSettings(steps=3))
    with open_bench(bench) as here:
        apparatus = open_apparatus(here, "optics")
        expected = small_training(apparatus, method="pat-refit")
        twin_here = fit(OpticsTwin(), apparatus.open_device(fit_stream(0), 0))
    app = create_app(bench, data_dir=tmp_path, secret=SECRET)
    with serve_in_thread(app) as url, RemoteRun(url, "optics", secret=SECRET, job="j") as run:
        apparatus = remote_apparatus(run)
        assert_same(small_training(apparatus, method="pat-refit"), expected)
        twin = fit(OpticsTwin(), apparatus.open_device(fit_stream(0), 0))
        assert twin.report() | {"seconds": 0} == twin_here.report() | {"seconds": 0}
        assert run.hardware_s() > 0
        with pytest.raises(ConfigError, match="'ideal' needs the simulated bench here"):
            small_training(apparatus, method="ideal")


@contextmanager
def told(process_start: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Yield a `stopped` that, the tenth time it is asked, has something done in a thread."""
    asked, threads = [0], [threading.Thread(target=process_start)]

    def stopped() -> bool:
        asked[0] += 1
        if asked[0] == 10:
            threads[0].start()
        return False

    yield stopped
    threads[0].join(LIMIT_S)
    assert asked[0] >= 10


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_service_killed_in_the_midst_and_started_again_changes_nothing(bench, tmp_path):
    """Its rows take their time, so that the kill meets one in flight."""
    parts = {n: p.model_copy(update={"row_time_s": 0.002}) for n, p in bench.instruments.items()}
    rigs = {n: r.model_copy(update={"honour_times": True}) for n, r in bench.rigs.items()}
    slow = bench.model_copy(update={"instruments": parts, "rigs": rigs})
    with open_bench(bench.model_copy(update={"instruments": parts})) as here:
        expected = small_training(open_apparatus(here, "optics"), method="pat")
    port, over = free_port(), threading.Event()
    states: list[str] = []

    def kill_and_start_again() -> None:
        while not client.system("optics")["status"]["running"]:
            pass
        process.kill()
        process.join()
        with driving.serving(slow, tmp_path, port) as (_, again):
            over.wait(LIMIT_S)
            states.append(again.system("optics")["status"]["state"])

    with (
        driving.serving(slow, tmp_path, port) as (process, client),
        told(kill_and_start_again) as stopped,
        RemoteRun(client.url, "optics", stopped=stopped) as run,
    ):
        try:
            assert_same(small_training(remote_apparatus(run), method="pat"), expected)
        finally:
            over.set()
    assert states == ["ok"]


def test_without_the_secret_nothing_is_measured_and_nothing_tried_again(
    bench, tmp_path, serve_in_thread, monkeypatch
):
    monkeypatch.delenv("PNNLAB_SECRET", raising=False)
    app = create_app(bench, data_dir=tmp_path, secret=SECRET)
    with serve_in_thread(app) as url:
        for secret in (None, SECRET[::-1]):
            with RemoteRun(url, "optics", secret=secret, patience_s=1e9) as run:
                for ask in (run.describe, lambda run=run: run(*rows(1))):
                    with pytest.raises(ServiceError) as refused:
                        ask()
                    assert refused.value.status == 401
        assert app.state.lab.scheduler.status("optics").rows_done == 0
        monkeypatch.setenv("PNNLAB_SECRET", SECRET)
        with RemoteRun(url, "optics") as run:
            assert np.array_equal(run(*rows(2)), measured_here(2, 3))


def test_after_a_cancel_no_further_row_starts(bench, tmp_path, serve_in_thread, gate):
    app = create_app(bench, data_dir=tmp_path)
    with (
        serve_in_thread(app) as url,
        RemoteRun(url, "optics", patience_s=0) as run,
        ThreadPoolExecutor(2) as threads,
    ):
        calls = [threads.submit(run, *rows(50, stream)) for stream in (1, 2)]
        assert gate.measuring.wait(LIMIT_S)
        with Client(url) as client:
            while not client.queue("optics")["waiting"]:
                pass
            run.cancel()
            for call in calls:  # at once: the row in flight is still held
                with pytest.raises(PassCancelled, match="optics at http"):
                    call.result(LIMIT_S)
            [portion] = app.state.lab.scheduler._queues["optics"].hardware.running.portions
            while not portion.ticket.stopped() or client.queue("optics")["waiting"]:
                pass  # the service hears of it in its own time
            gate.go_on.set()
            while client.system("optics")["status"]["running"]:
                pass
            assert client.system("optics")["status"]["rows_done"] == 1
        assert np.array_equal(run(*rows(2)), measured_here(2, 3))  # it can go on


def test_what_is_stopped_is_not_sent(bench, tmp_path, serve_in_thread):
    app = create_app(bench, data_dir=tmp_path)
    with serve_in_thread(app) as url, RemoteRun(url, "optics", stopped=lambda: True) as run:
        with pytest.raises(PassCancelled, match="before it was sent"):
            run(*rows(1))
        with RemoteRun(url, "optics") as other, pytest.raises(PassCancelled):
            other(*rows(1), stopped=lambda: True)
        assert app.state.lab.scheduler.status("optics").rows_done == 0


def test_several_threads_measure_at_once_and_large_passes_in_parts(
    bench, tmp_path, serve_in_thread, monkeypatch
):
    monkeypatch.setattr(lab.remote, "_PART_BYTES", 7 * 800)
    with (
        serve_in_thread(create_app(bench, data_dir=tmp_path)) as url,
        RemoteRun(url, "optics") as run,
        ThreadPoolExecutor(4) as threads,
    ):
        found = list(threads.map(lambda stream: run(*rows(20, stream)), range(4)))
    for stream, y in enumerate(found):
        assert np.array_equal(y, measured_here(20, stream))


def test_what_the_system_raises_is_raised_here(
    bench, tmp_path, serve_in_thread, reconfigured, faulty
):
    app = create_app(reconfigured(recovery_attempts=0), data_dir=tmp_path)
    with serve_in_thread(app) as url, RemoteRun(url, "optics") as run:
        x, theta, keys = rows(2)
        with pytest.raises(LimitError, match=r"^optics: x: 1\.5 relative field") as refused:
            run(np.full_like(x, 1.5), theta, keys)
        assert (refused.value.instrument, refused.value.quantity) == ("optics", "x")
        with pytest.raises(ValueError, match="2 rows of x, 2 of theta, 1 row keys"):
            run(x, theta, keys[:1])
        with faulty(), pytest.raises(InstrumentTimeout, match=r"spectrometer: no answer in 5 s"):
            run(x, theta, keys)
        with RemoteRun(url, "opticks") as other, pytest.raises(UnknownName, match="opticks"):
            other.describe()


def test_a_connection_that_was_ended_between_two_passes_is_not_used(
    bench, tmp_path, serve_in_thread
):
    with serve_in_thread(create_app(bench, data_dir=tmp_path)) as url:
        port = int(url.rpartition(":")[2])
        with (
            Forwarder("127.0.0.1", port) as line,
            RemoteRun(f"http://127.0.0.1:{line.port}", "optics", patience_s=0) as run,
        ):
            for _ in range(2):
                assert np.array_equal(run(*rows(2)), measured_here(2, 3))
                line.cut()
                line.mend()


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def scripted(answers: list[Answer]) -> Iterator[tuple[str, list[str]]]:
    """Answer POSTs as told, the last answer for ever; give the address and the paths asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            status, headers, body = answers[min(len(asked), len(answers)) - 1]
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def problem(name: str, **more: Any) -> bytes:
    return json.dumps({"type": f"urn:pnnlab:problem:{name}", "detail": name, **more}).encode()


LOST: Answer = (0, {}, b"")
FULL: Answer = (429, {}, problem("queue-full", retry_after_s=0.01))
CLOSED: Answer = (503, {}, problem("system-closed"))
OUT_OF_REACH: Answer = (503, {}, problem("database-away", retry_after_s=0.01))
NO_GATEWAY: Answer = (502, {}, b"<html>bad gateway")
BAD: Answer = (409, {}, problem("deadline-missed"))


@pytest.mark.parametrize("before", [LOST, FULL, CLOSED, OUT_OF_REACH, NO_GATEWAY])
def test_a_service_that_is_away_or_full_is_asked_again(monkeypatch, before):
    monkeypatch.setattr(lab.tries, "_FIRST_PAUSE_S", 0.001)
    with (
        scripted([before] * 3 + [BAD]) as (url, asked),
        RemoteRun(url, "a/b") as run,
        pytest.raises(DeadlineMissed),
    ):
        run(*rows(1), depth=2)
    assert len(asked) == 4
    assert asked[0].startswith("/api/v1/systems/a%2Fb/passes?")
    assert asked[0].endswith("depth=2")


@pytest.mark.parametrize("away", [LOST, CLOSED, OUT_OF_REACH, NO_GATEWAY])
def test_patience_ends(monkeypatch, away):
    monkeypatch.setattr(lab.tries, "_FIRST_PAUSE_S", 0.001)
    with (
        scripted([away]) as (url, asked),
        RemoteRun(url, "optics", patience_s=0.2) as run,
        pytest.raises(ServiceError, match=f"no answer from {url} for 0.2 s"),
    ):
        run(*rows(1))
    assert len(asked) > 1


FULL_FOR_LONG: Answer = (429, {}, problem("queue-full", retry_after_s=1e6))


@pytest.mark.parametrize("answer", [FULL_FOR_LONG, LOST])
def test_who_waits_for_a_service_can_be_cancelled(answer):
    with (
        scripted([answer]) as (url, asked),
        RemoteRun(url, "optics", patience_s=1e6) as run,
        ThreadPoolExecutor(1) as threads,
    ):
        call = threads.submit(run, *rows(1))
        while not asked:
            pass
        while not call.done():  # it may be between two requests
            run.cancel()
        with pytest.raises(PassCancelled):
            call.result()


def test_the_secret_follows_no_redirect():
    with scripted([(200, {}, b"{}")]) as (elsewhere, asked):
        moved: Answer = (307, {"Location": f"{elsewhere}/api/v1/systems/optics"}, b"")
        with scripted([moved]) as (url, _):
            with (
                RemoteRun(url, "optics", secret=SECRET) as run,
                pytest.raises(ServiceError, match="HTTP 307"),
            ):
                run(*rows(1))
            with (
                Client(url, secret=SECRET) as client,
                pytest.raises(ServiceError, match="HTTP 307"),
            ):
                client.system("optics")
    assert asked == []


def test_what_is_no_measurement_is_said_so():
    with scripted([(200, {}, b"hello")]) as (url, _), RemoteRun(url, "optics") as run:
        with pytest.raises(ServiceError, match="its answer is no measurement"):
            run(*rows(1))
        with pytest.raises(ServiceError, match="no system as this version knows"):
            run.describe()
    for bad in ("127.0.0.1:8000", "ftp://127.0.0.1", "http://"):
        with pytest.raises(ConfigError, match="address of a service"):
            RemoteRun(bad, "optics")


@functools.cache
def status() -> SystemStatus:
    with open_bench(ROOT / "bench.toml", start=False) as bench:
        return HardwareScheduler(bench.systems).status("optics")


def arrived(description: SystemDescription) -> SystemDescription:
    view = SystemView.of(description, status(), family="f", bench="b", simulated=True)
    found = read_system(view.model_dump_json().encode())
    assert (found.family, found.bench, found.simulated) == ("f", "b", True)
    return found.description


@pytest.mark.parametrize("name", ["optics", "circuit", "plate"])
def test_a_description_arrives_as_it_is(name):
    file = "bench.toml" if name == "optics" else f"bench-{name}.toml"
    with open_bench(ROOT / file, start=False) as bench:
        description = bench.system(name).description
    assert arrived(description) == description


specs = st.builds(
    lambda name, ends, dtype, decimals: ArraySpec(name, "V", (3, 2), *ends, dtype, decimals),
    st.text(),
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2, unique=True
    ).map(sorted),
    st.sampled_from(["float64", "float32", "int16"]),
    st.none() | st.integers(0, 12),
)


@given(specs, specs, specs, st.floats(0, 1e6), st.sampled_from(["channels", "series"]))
def test_any_description_arrives_to_the_bit(x, theta, y, row_time_s, drives):
    described = SystemDescription("optics", x, theta, y, row_time_s, drives)
    found = arrived(described)
    assert found == described
    for ours, others in ((found.x, x), (found.theta, theta), (found.y, y)):
        assert np.array([ours.low, ours.high]).tobytes() == (
            np.array([others.low, others.high]).tobytes()
        )

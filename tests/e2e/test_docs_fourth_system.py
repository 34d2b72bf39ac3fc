"""The documented fourth system: what its page shows is its file, and its driver keeps the rules."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import pytest

from documentation import ROOT, TEXT, blocks
from drivers.errors import (
    ConnectionLost,
    IdentityError,
    InstrumentRefused,
    InstrumentTimeout,
    LimitError,
    ProtocolError,
)
from drivers.row_key import row_keys
from examples import execute, labels, pnnlab, serving, small_jobs, without_numbers
from lab.bench import Bench, open_bench
from lab.bench_config import load_bench
from lab.client import Client
from lab.errors import ConfigError
from lab.jobs.nursery import Nursery
from lab.rigs import with_rigs

PAGE = "fourth-system.md"
MODULE = ROOT / "docs" / "coupled_oscillators.py"
BENCH = MODULE.with_suffix(".toml")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(MODULE.parent)
    return importlib.import_module(MODULE.stem)


@pytest.fixture
def bench(module: ModuleType) -> Iterator[Bench]:
    with open_bench(BENCH) as bench:
        yield bench


def test_the_page_shows_the_files() -> None:
    *parts, _ = blocks(PAGE, "python")
    assert parts
    for part in parts:
        assert part in MODULE.read_text()
    assert blocks(PAGE, "toml") == [BENCH.read_text()]


def test_it_is_as_short_as_the_page_says() -> None:
    assert "fewer than 100 lines of code" in TEXT[PAGE]
    text = MODULE.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    docstrings = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    spared = {i for d in docstrings for i in range(d.lineno, d.end_lineno + 1)}
    lines = enumerate(text.splitlines(), start=1)
    assert len([i for i, line in lines if line.strip() and i not in spared]) < 100


def test_uncoupled_pendula_swing_as_one_does(module: ModuleType) -> None:
    # a small swing is cos t; ten steps of fourth order leave 1e-6 of it
    small = module.swing(np.full(16, 1e-4), np.zeros(module.CONTROLS))
    np.testing.assert_allclose(small, 1e-4 * np.cos(1.0), rtol=1e-5)


def test_the_equation_is_the_pages(module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    angle, controls = rng.uniform(-1.5, 1.5, 16), rng.uniform(-1, 1, module.CONTROLS)
    coupling = np.zeros((16, 16))
    for value, i, j in zip(controls[:120], *module.PAIRS, strict=True):
        coupling[i, j] = coupling[j, i] = value
    q, speed, h = angle.copy(), np.zeros(16), 1e-4
    for _ in range(10_000):  # the symplectic Euler rule, whose error is about h
        s = np.sin(q)
        speed += h * (-s + (coupling * (s[None, :] - s[:, None])).sum(1) + controls[120:])
        q += h * speed
    np.testing.assert_allclose(module.swing(angle, controls, steps=100), q, atol=5e-3)
    np.testing.assert_allclose(module.swing(angle, controls), q, atol=2e-2)


def test_noise_follows_the_rows_key(bench: Bench) -> None:
    system = bench.system("oscillators")
    keys = row_keys(3, 0, 4, 0.5)
    x, theta = np.full((4, 16), 0.3), np.zeros((4, 136))
    rows = system.transform(x, theta, keys).y
    assert len(np.unique(rows[:, 0])) == 4
    np.testing.assert_array_equal(system.transform(x, theta, keys[::-1]).y, rows[::-1])
    np.testing.assert_array_equal(system.transform(x[:1], theta[:1], keys[2:3]).y[0], rows[2])


def test_the_gap_is_a_coupling_error_of_the_specimen(module: ModuleType) -> None:
    x, theta = np.full((1, 16), 0.5), np.full((1, 136), 0.1)
    x[:, ::2] *= -1
    found = {}
    for gap, specimen in ((0.0, 0), (0.0, 1), (1.0, 0), (1.0, 1)):
        changed = with_rigs(load_bench(BENCH), gap=gap, device_seed=specimen, noise=0.0)
        with open_bench(changed) as bench:
            found[gap, specimen] = bench.system("oscillators").transform(x, theta).y[0]
    textbook = module.swing(x[0], theta[0])
    np.testing.assert_allclose(found[0.0, 0], textbook, rtol=1e-12)
    np.testing.assert_allclose(found[0.0, 1], textbook, rtol=1e-12)
    assert np.abs(found[1.0, 0] - textbook).max() > 0.05
    assert np.abs(found[1.0, 0] - found[1.0, 1]).max() > 0.05


def test_the_motors_stand_still_at_the_start_and_at_the_end(module: ModuleType) -> None:
    with open_bench(BENCH) as bench:
        board = bench.rigs["pendula"].plant
        assert not board.moving
        bench.system("oscillators").transform(np.zeros((1, 16)), np.zeros((1, 136)))
        assert board.moving
    assert not board.moving


def test_values_out_of_range_are_refused_before_anything_is_sent(bench: Bench) -> None:
    system, board = bench.system("oscillators"), bench.rigs["pendula"].plant
    x, theta = np.zeros((1, 16)), np.zeros((1, 136))
    with pytest.raises(LimitError, match=r"oscillators: x: 1.6 rad .* \[-1.5, 1.5\] rad"):
        system.transform(x + 1.6, theta)
    with pytest.raises(LimitError, match=r"board: controls: -1.5 1 .* \[-1, 1\] 1"):
        system.board.run(x[0], theta[0] - 1.5)
    assert not board.moving


def test_the_bench_file_narrows_what_the_board_may_be_told(
    module: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "bench.toml"
    limits = "[instruments.board.limits]\ncontrols = [{}]\n\n[systems.osc"
    path.write_text(BENCH.read_text().replace("[systems.osc", limits.format("-0.5, 0.5")))
    with open_bench(path) as bench:
        theta = bench.system("oscillators").description.theta
    assert (theta.low, theta.high) == (-0.5, 0.5)
    path.write_text(BENCH.read_text().replace("[systems.osc", limits.format("-2, 2")))
    with pytest.raises(ConfigError, match="wider"), open_bench(path):
        pass


def raising(kind: type[Exception]) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        raise kind("struck")

    return httpx.MockTransport(answer)


def answering(status: int, content: bytes) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(status, content=content))


@pytest.mark.parametrize(
    ("transport", "kind"),
    [
        (raising(httpx.ReadTimeout), InstrumentTimeout),
        (raising(httpx.ConnectError), ConnectionLost),
        (answering(500, b"motor 3 is stuck"), InstrumentRefused),
        (answering(200, b"\xff\xfe?!"), ProtocolError),
        (answering(200, b"[0, 1]"), ProtocolError),
        (answering(200, b'"no"'), ProtocolError),
    ],
)
def test_what_goes_wrong_is_an_error_of_the_driver(
    module: ModuleType, transport: httpx.MockTransport, kind: type[Exception]
) -> None:
    with httpx.Client(transport=transport, base_url="http://board") as client:
        driver = module.PendulumBoard(client, "board", None)
        with pytest.raises(kind, match="board: /run: "):
            driver.run(np.zeros(16), np.zeros(136))


def test_another_device_is_refused_and_a_closed_driver_sends_nothing(module: ModuleType) -> None:
    with httpx.Client(transport=answering(200, b'"a toaster"'), base_url="http://x") as client:
        driver = module.PendulumBoard(client, "board", "pendulum")
        with pytest.raises(IdentityError, match="a toaster"):
            driver.start()
        driver.close()
        driver.close()
        with pytest.raises(ConnectionLost, match="closed"):
            driver.identify()


def test_rows_that_nobody_gave_a_key_differ(bench: Bench) -> None:
    system = bench.system("oscillators")
    rows = system.transform(np.zeros((2, 16)), np.zeros((2, 136))).y
    assert (rows[0] != rows[1]).any()


@pytest.fixture
def url(
    nursery: Nursery | None, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.chdir(ROOT)
    with small_jobs(nursery), serving(load_bench(BENCH), tmp_path) as url:
        yield url


def test_the_commands_and_the_training(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    check, serve, submit = blocks(PAGE, "sh")
    checked, fitted, trained = blocks(PAGE, "text")
    where = "PYTHONPATH=docs "
    assert without_numbers(pnnlab(check.removeprefix(where), url)) == without_numbers(checked)
    bench = check.partition("--bench")[2]
    assert serve.removeprefix(where) == f"pnnlab serve --bench{bench}"
    execute(blocks(PAGE, "python")[-1], url)
    printed = capsys.readouterr().out
    assert re.sub(r"-?\d+\.\d+", "#", printed) == re.sub(r"-?\d+\.\d+", "#", fitted)
    shown = "".join(pnnlab(line, url, "--epochs", "2") for line in submit.splitlines())
    assert labels(shown) == labels(trained)
    with Client(url) as client:
        jobs = client.jobs()
        assert len(jobs) == 3
        assert len({client.result(job["id"])["twin"] for job in jobs}) == 1

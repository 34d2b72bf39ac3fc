"""Tests of a lab's own bench: `pytest tests/hardware --bench my-bench.toml`.

They drive the instruments of that file, within its limits, and are skipped without it. What they
measure stands at the end of pytest's output.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.instrument import Instrument
from drivers.transport import Rig, open_rigs
from forwarder import Forwarder
from lab.bench import Bench, open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.openers import open_instrument

FINDINGS = pytest.StashKey[list[str]]()
OPTION = "--bench"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, metavar="FILE", help="the bench that tests/hardware drives")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FINDINGS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test once for every instrument, or system, of the bench file."""
    file = metafunc.config.getoption(OPTION, None)
    for kind in {"instrument", "system"} & set(metafunc.fixturenames):
        if file is None:
            reason = f"drives a real bench: pytest tests/hardware {OPTION} my-bench.toml"
            names = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
        else:
            names = list(getattr(load_bench(file), f"{kind}s"))
        metafunc.parametrize(kind, names)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if findings := config.stash.get(FINDINGS, []):
        terminalreporter.section("the bench")
        for finding in findings:
            terminalreporter.write_line(finding)


@pytest.fixture(scope="session")
def config(request: pytest.FixtureRequest) -> BenchConfig:
    return load_bench(Path(request.config.getoption(OPTION)))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what adds a line to the findings."""
    return request.config.stash[FINDINGS].append


@pytest.fixture
def rigs(config: BenchConfig) -> Iterator[dict[str, Rig]]:
    rigs = open_rigs(config.rigs)
    yield rigs
    for rig in rigs.values():
        rig.close()


@pytest.fixture
def driver(config: BenchConfig, instrument: str, rigs: dict[str, Rig]) -> Iterator[Instrument]:
    """Return the opened driver of one instrument; it ends in its safe state."""
    with open_instrument(config, instrument, rigs) as driver:
        yield driver


@pytest.fixture
def bench(config: BenchConfig, system: str) -> Iterator[Bench]:
    """Return a bench with one system, started."""
    part = config.systems[system]
    needed = {name: config.instruments[name] for name in part.instruments.values()}
    alone = config.model_copy(update={"systems": {system: part}, "instruments": needed})
    with open_bench(alone) as bench:
        yield bench


_TCP = (
    (re.compile(r"(?P<before>http://)(?P<host>[^:/]+)(:(?P<port>\d+))?(?P<after>.*)"), 80),
    (re.compile(r"(?P<before>TCPIP\d*::)(?P<host>[^:]+)::(?P<port>\d+)(?P<after>::SOCKET)"), None),
    (re.compile(r"(?P<before>ocean://)(?P<host>[^:/]+)(:(?P<port>\d+))?(?P<after>)"), 57357),
)


@pytest.fixture
def line(config: BenchConfig, instrument: str) -> Iterator[tuple[Forwarder, str]]:
    """Return a line to an instrument on TCP that can be cut, and its address; else skip."""
    address = config.instruments[instrument].address
    for form, usual_port in _TCP:
        if found := form.fullmatch(address):
            with Forwarder(found["host"], int(found["port"] or usual_port)) as forwarder:
                here = "127.0.0.1" + ("::" if "SOCKET" in address else ":") + str(forwarder.port)
                yield forwarder, found["before"] + here + found["after"]
            return
    pytest.skip(f"{address}: not on TCP; pull its plug by hand during a pass")

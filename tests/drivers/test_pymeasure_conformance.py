"""PyMeasure's own tests of all its instruments, run on ours.

`make setup` fetches PyMeasure's source distribution, whose tests no wheel contains, with the hash
in tests/third-party.txt; without it these tests are skipped.
"""

import hashlib
import re
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pymeasure
import pytest

import drivers
from drivers.circuits.redpitaya import RedPitayaDAQ
from drivers.circuits.redpitaya_board import Input, Output
from drivers.spectrometers.yokogawa import YokogawaAQ6370

PINS = Path(__file__).parents[1] / "third-party.txt"
PIN = re.search(r"^pymeasure==(\S+) --hash=sha256:(\w+)$", PINS.read_text(), re.MULTILINE)
FOLDER = f"pymeasure-{PIN[1]}"
ARCHIVE = Path(sys.prefix) / "third-party" / f"{FOLDER}.tar.gz"
MEMBER = f"{FOLDER}/tests/instruments/test_all_instruments.py"

if not ARCHIVE.is_file():
    pytest.skip(
        f"needs PyMeasure's source distribution in {ARCHIVE.parent}: make setup fetches it",
        allow_module_level=True,
    )

# Our modules import PyMeasure's plain Instrument, which the suite finds too and which warns.
pytestmark = pytest.mark.filterwarnings(
    "ignore:It is deprecated to specify `includeSCPI` implicitly:FutureWarning"
)


def load(package: ModuleType) -> ModuleType:
    """Return PyMeasure's test module as it comes out when its instruments are in `package`."""
    if hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() != PIN[2]:
        raise RuntimeError(f"{ARCHIVE} has not the hash that {PINS.name} states")
    with tarfile.open(ARCHIVE) as archive:
        source = archive.extractfile(MEMBER).read()
    module = ModuleType("pymeasure_test_all_instruments")
    real = pymeasure.instruments
    pymeasure.instruments = package
    try:
        exec(compile(source, f"{ARCHIVE}/{MEMBER}", "exec"), module.__dict__)
    finally:
        pymeasure.instruments = real
    return module


SUITE = load(drivers)
TESTS = {name: value for name, value in vars(SUITE).items() if name.startswith("test_")}
globals().update(TESTS)


def test_the_suite_has_found_our_classes():
    assert {YokogawaAQ6370, RedPitayaDAQ} <= SUITE.devices
    assert {Input, Output} <= SUITE.channels
    named = {(device.__name__, name) for device, name, _ in SUITE.properties}
    assert {("RedPitayaDAQ", "decimation"), ("Output", "amplitude")} <= named
    assert len(TESTS) == 6
    assert not SUITE.is_pyvisa_sim_not_installed


BAD = '''
from pymeasure.instruments import Instrument


class Bad(Instrument):
    """Break every rule."""

    level = Instrument.measurement("LEV?", """The level, V.""")

    def __init__(self, address):
        super().__init__(address, "Bad", includeSCPI=True)
'''


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """Return PyMeasure's tests on a package with one bad class, and that class."""
    folder = tmp_path / "bad_lab"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "meter.py").write_text(BAD)
    monkeypatch.syspath_prepend(tmp_path)
    package = __import__("bad_lab.meter")
    yield load(package), package.meter.Bad
    for name in ("bad_lab.meter", "bad_lab"):
        del sys.modules[name]


@pytest.mark.parametrize(
    "test", ["test_adapter_arg", "test_name_argument", "test_includeSCPI_not_set_to_True"]
)
def test_a_bad_constructor_is_caught(bad, test):
    suite, cls = bad
    with pytest.raises(TypeError, match="unexpected keyword argument 'adapter'"):
        vars(suite)[test](cls)


def test_a_constructor_that_swallows_keywords_is_caught(bad):
    suite, cls = bad
    with pytest.raises(TypeError, match="unexpected keyword argument 'visa_library'"):
        suite.test_kwargs_to_adapter(cls)


def test_a_bad_docstring_is_caught(bad):
    suite, cls = bad
    (level,) = (p for p in suite.properties if p[:2] == (cls, "level"))
    with pytest.raises(AssertionError, match=r"'Bad\.level' docstring does start with 'The'"):
        suite.test_property_docstrings(level)

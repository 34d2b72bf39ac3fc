"""What every driver must do, whatever its product family."""

import re

import numpy as np
import pytest

from drivers.errors import Aborted, ConnectionLost, DriverError, IdentityError
from drivers.mock.faults import Fault

DRIVERS = ["shaper", "slm", "spectrometer", "ocean", "daq", "audio", "daq_plate", "redpitaya"]
RIGS = {  # the others stand on the rig `rig`
    "audio": "plate_rig_of_echo",
    "daq_plate": "plate_rig_of_echo",
}


@pytest.fixture(params=DRIVERS)
def make(request):
    """Return a maker of one driver; its instrument goes by the same name in the rig."""
    maker = request.getfixturevalue(f"make_{request.param}")

    def make(**settings):
        return maker(name=request.param, **settings)

    make.instrument = request.param
    make.rig = request.getfixturevalue(RIGS.get(request.param, "rig"))
    return make


def test_it_identifies_itself_before_and_after_start(make):
    driver = make()
    identity = driver.identify()
    driver.start()
    assert driver.identify() == identity
    assert re.search("6370|1000A|SLM-0193|HDX0|1208HS|48000 Hz|REDPITAYA", identity)


def test_start_shutdown_and_close_are_idempotent(make):
    driver = make()
    for _ in range(2):
        driver.start()
    for _ in range(2):
        driver.shutdown()
    driver.start()
    for _ in range(2):
        driver.close()
    driver.shutdown()


def test_shutdown_needs_no_start(make):
    make().shutdown()


def test_a_context_closes_it(make):
    with make() as driver:
        driver.start()
    for call in (driver.identify, driver.start):
        with pytest.raises(ConnectionLost, match=f"{driver.name}: .*closed"):
            call()


def test_it_refuses_the_wrong_identity(make):
    with pytest.raises(IdentityError, match=f"{make.instrument}: .*/no such thing/"):
        make(expect_idn="no such thing").start()


def attempt(call):
    """Return the driver error that `call` raises, or None."""
    try:
        call()
    except DriverError as error:
        return error
    return None


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("call", ["start", "identify", "shutdown"])
def test_a_fault_is_one_driver_error_and_start_recovers(make, fault, call):
    driver = make(expect_idn="YOKOGAWA|WaveShaper|SLM-0193|HDX0|USB-1208HS|48000 Hz|REDPITAYA")
    driver.start()
    make.rig.inject(make.instrument, fault)
    # A fault of an answer waits for a command that has one, at the latest in start.
    errors = [e for e in (attempt(getattr(driver, call)), attempt(driver.start)) if e is not None]
    for error in errors:
        assert type(error) is not DriverError
        assert error.instrument == driver.name
        assert str(error).startswith(f"{driver.name}: ")
    silent = fault is Fault.IDENTITY and call == "identify"
    assert bool(errors) is not silent
    driver.start()
    assert driver.identify() == make().identify()
    driver.close()


OPERATIONS = {
    "shaper": lambda driver: driver.load(*np.zeros((2, *driver.attenuation.shape))),
    "slm": lambda driver: driver.load(*np.zeros((2, *driver.attenuation.shape))),
    "ocean": lambda driver: driver.measure(),
    "daq": lambda driver: driver.acquire(np.zeros((1, *driver.drive.shape))),
    "audio": lambda driver: driver.play_and_record(np.zeros((1, *driver.drive.shape))),
    "daq_plate": lambda driver: driver.play_and_record(np.zeros((1, *driver.drive.shape))),
}


@pytest.mark.parametrize("make", OPERATIONS, indirect=True)
def test_after_an_abort_nothing_runs_but_the_shutdown_until_the_next_start(make):
    driver = make()
    operation = OPERATIONS[make.instrument]
    driver.start()
    operation(driver)
    driver.abort()
    for _ in range(2):
        with pytest.raises(Aborted, match=f"^{make.instrument}: .*aborted"):
            operation(driver)
    driver.shutdown()
    driver.start()
    operation(driver)
    driver.close()


def test_names_in_errors_are_the_bench_files(make):
    driver = make()
    driver.close()
    with pytest.raises(ConnectionLost) as caught:
        driver.identify()
    assert caught.value.instrument == make.instrument


def test_both_share_one_plant(make_shaper, make_spectrometer):
    with make_shaper() as shaper, make_spectrometer() as spectrometer:
        shaper.start()
        spectrometer.start()
        assert spectrometer.measure().max() == 0
        shaper.load(np.zeros(20), np.zeros(20))
        assert spectrometer.measure().max() > 0
        shaper.shutdown()
        assert spectrometer.measure().max() == 0

"""Each instrument by itself: who it is, its settings, its safe state, its limits, a cut line."""

import numpy as np
import pytest

from drivers.errors import ConnectionLost, InstrumentTimeout, LimitError
from drivers.mock.faults import Fault
from lab.openers import open_instrument


def operation(driver):
    """Return the call that drives or reads an instrument, and the quantities that it takes."""
    for call, quantities in (
        ("load", ("attenuation", "phase")),
        ("acquire", ("drive",)),
        ("play_and_record", ("drive",)),
        ("measure", ()),
    ):
        if hasattr(driver, call):
            return getattr(driver, call), [getattr(driver, name) for name in quantities]
    pytest.skip(f"{type(driver).__name__}: no kind of instrument that is known here")


def gentle(specs, batched):
    """Return the quietest values of each: 0 where that is allowed, no light for a shaper."""
    rows = (1,) if batched else ()
    quiet = [s.high if s.name == "attenuation" else np.clip(0.0, s.low, s.high) for s in specs]
    return [np.full((*rows, *s.shape), value) for s, value in zip(specs, quiet, strict=True)]


def takes_rows(driver):
    return not hasattr(driver, "load")


def test_it_is_who_the_bench_file_says(driver, config, instrument, tell):
    identity = driver.identify()
    tell(f"{instrument}: {identity}")
    expected = config.instruments[instrument].expect_idn
    assert expected is not None, f"put expect_idn into the bench file: it answers {identity!r}"
    driver.start()


def test_its_settings_are_taken_every_time(driver):
    """A driver reads back what it sets, where the instrument can tell, and raises if it differs."""
    identity = driver.identify()
    for _ in range(3):
        driver.start()
    assert driver.identify() == identity


def test_a_shapers_profile_reads_back(driver):
    if not hasattr(driver, "profile"):
        pytest.skip("no programmable filter")
    driver.start()
    call, specs = operation(driver)
    attenuation, phase = gentle(specs, batched=False)
    call(attenuation, phase)
    profile = driver.profile()
    np.testing.assert_allclose(profile.attenuation_db, attenuation, atol=1e-3)
    driver.shutdown()
    assert not driver.profile().port.any(), "lines that are not blocked in the safe state"


def test_the_safe_state_can_be_reached_from_anywhere(driver):
    driver.shutdown()
    driver.start()
    call, specs = operation(driver)
    call(*gentle(specs, takes_rows(driver)))
    for _ in range(2):
        driver.shutdown()
    driver.start()


def test_what_is_out_of_limits_is_refused_without_a_byte(driver):
    """The driver is closed: what it refuses all the same it has refused before the wire."""
    call, specs = operation(driver)
    if not specs:
        pytest.skip("nothing can be set that has limits")
    driver.close()
    for number, spec in enumerate(specs):
        beyond = 0.01 * (spec.high - spec.low)
        for wrong in (spec.high + beyond, spec.low - beyond, np.nan, None):
            values = gentle(specs, takes_rows(driver))
            if wrong is None:
                values[number] = values[number][..., :-1]
            else:
                values[number][..., -1] = wrong
            with pytest.raises(LimitError, match=spec.name):
                call(*values)


def test_a_cut_line_is_an_error_and_the_next_start_mends_it(config, instrument, request, tell):
    part = config.instruments[instrument]
    if part.address.startswith("mock://"):
        request.getfixturevalue("driver").start()
        rig = request.getfixturevalue("rigs")[part.rig]
        check(
            request.getfixturevalue("driver"),
            cut=lambda: rig.inject(part.address.rpartition("/")[2], Fault.DROP),
            mend=lambda: None,
        )
        return
    line, address = request.getfixturevalue("line")
    there = {**config.instruments, instrument: part.model_copy(update={"address": address})}
    with open_instrument(
        config.model_copy(update={"instruments": there}), instrument, {}
    ) as driver:
        driver.start()
        check(driver, cut=line.cut, mend=line.mend)
    tell(f"{instrument}: a cut line was told and mended")


def check(driver, *, cut, mend):
    identity = driver.identify()
    cut()
    with pytest.raises((ConnectionLost, InstrumentTimeout), match=f"^{driver.name}: "):
        driver.identify()
    mend()
    driver.start()
    assert driver.identify() == identity

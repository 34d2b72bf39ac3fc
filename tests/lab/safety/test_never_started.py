"""What a guard does: a driver that is opened and closed, never started, makes the far end safe."""

from typing import Any

import numpy as np
import pytest

from drivers.transport import open_rigs
from lab.bench_config import BenchConfig
from lab.openers import open_instrument

LINES = {"lines": 20}


def light(driver: Any) -> None:
    driver.load(np.zeros(20), np.zeros(20))


def outputs_on(driver: Any) -> None:
    driver.write("OUTPUT:STATE ON")


def volts(driver: Any) -> None:
    driver._board.a_out_scan(np.full((16, 2), 3.0), 1e6)


@pytest.mark.parametrize(
    ("driver", "address", "settings", "leave_unsafe"),
    [
        ("WaveShaperA", "optics/shaper", LINES, light),
        ("SLMShaper", "optics/slm", LINES, light),
        ("RedPitayaDAQ", "circuit/redpitaya", {}, outputs_on),
        ("MccUsb1208HS", "circuit/daq", {}, volts),
        ("AudioPlate", "plate/audio", {}, lambda driver: None),  # its stream runs
    ],
)
def test_it_makes_safe_what_a_crash_has_left(driver, address, settings, leave_unsafe) -> None:
    rig, name = address.split("/")
    part = {"driver": driver, "address": f"mock://{address}", "settings": settings}
    plain = {"name": "b", "rigs": {rig: {"plant": rig}}, "instruments": {"one": part}}
    bench = BenchConfig.model_validate({**plain, "systems": {}})
    rigs = open_rigs(bench.rigs)
    crashed = open_instrument(bench, "one", rigs)
    crashed.start()
    leave_unsafe(crashed)
    assert not rigs[rig].instruments[name].safe
    open_instrument(bench, "one", rigs).close()
    assert rigs[rig].instruments[name].safe

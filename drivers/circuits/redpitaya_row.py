"""What a row at a Red Pitaya may be: its length, rate and factors, and its limits in V."""

from dataclasses import replace

import numpy as np

from drivers.circuits.redpitaya_board import CLOCK_HZ, DECIMATIONS
from drivers.circuits.redpitaya_table import LENGTH, SEARCHED
from drivers.errors import refuse
from drivers.limits import RowLimit
from drivers.spec import ArraySpec


def volts(
    name: str, samples: int, full_v: float, row_limits: tuple[RowLimit, ...] = ()
) -> ArraySpec:
    """Return the spec of an array (samples,) of voltages within +-full_v."""
    return ArraySpec(name, "V", (samples,), -full_v, full_v, row_limits=row_limits)


def before_rounding(spec: ArraySpec, step_v: float) -> ArraySpec:
    """Return a spec whose rows keep to its limits after they are rounded to the DAC's steps.

    Each end of a jump may move by half a step. Raises ValueError for a limit of less than a step.
    """
    limits = [
        limit.narrowed(spec.name, limit.most - step_v) if limit.is_narrower else limit
        for limit in spec.row_limits
    ]
    return replace(spec, row_limits=tuple(limits))


def decimation_for(name: str, rate_hz: float) -> int:
    """Return the divider for a rate, or raise LimitError."""
    decimation = round(CLOCK_HZ / rate_hz) if rate_hz > 0 else 0
    if decimation not in DECIMATIONS or abs(CLOCK_HZ / decimation / rate_hz - 1) > 1e-9:
        message = f"{rate_hz:g} Hz is not 125 MHz over 1, 2, 4, 8 or an integer of 16 to 65536"
        refuse(name, "rate", message)
    return decimation


def check_row(name: str, samples: int, gap_samples: int) -> None:
    """Raise LimitError where no whole row fits into a table."""
    if samples < 2 or gap_samples < 1:
        message = f"{samples} and {gap_samples} are below 2 and 1 samples"
        refuse(name, "samples, gap", message)
    if samples + gap_samples > LENGTH - SEARCHED:
        message = f"{samples} + {gap_samples} samples are more than {LENGTH - SEARCHED} of a table"
        refuse(name, "samples, gap", message)


def check_factors(name: str, amplifier_gain: float, probe_attenuation: float) -> None:
    """Raise LimitError unless both are above 0."""
    for quantity, value in (("amplifier_gain", amplifier_gain), ("probe", probe_attenuation)):
        if not 0 < value < np.inf:
            refuse(name, quantity, f"{value!r} is not above 0")

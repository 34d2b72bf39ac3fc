"""The result of a job as text, by its kind."""

from collections.abc import Iterator, Mapping
from typing import Any

from lab.comparison.table import comparison_text


def result_lines(kind: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a user wants to see first of a result; nothing for kinds without such a text."""
    match kind:
        case "train":
            yield from _training(result)
        case "calibrate":
            yield from _calibration(result)
        case "evaluate":
            yield from _evaluation(result)
        case "compare":
            yield from comparison_text(result).splitlines()


def _training(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"accuracy on the device   {100 * result['test_accuracy']:5.1f} %"
    if result["twin_accuracy"] is not None:
        yield f"accuracy on its twin     {100 * result['twin_accuracy']:5.1f} %"
    yield f"logistic regression      {100 * result['baseline']:5.1f} %"
    yield f"hardware rows            {result['rows']:5d}, {result['instrument_hours']:.2f} h"


def _calibration(result: Mapping[str, Any]) -> Iterator[str]:
    unit = result["unit"]
    in_force = "in force" if result["applied"] else "not in force"
    yield f"calibration {result['name']}, {in_force}"
    yield f"dark          {result['dark_level']:.3g} {unit} (noise {result['dark_noise']:.3g})"
    snr = "" if result["snr"] is None else f", {result['snr']:.3g} times the noise"
    yield f"bright        {result['bright_level']:.3g} {unit}{snr}"
    margin = f"{100 * result['full_scale_use']:.1f} % of {result['full_scale']:.3g} {unit}"
    yield f"full scale    {margin}, {result['saturated']} rows saturated"
    if result["exponent"] is not None:
        yield f"response      as the drive to the power of {result['exponent']:.2f}"
    for name in ("dark_lag", "bright_lag", "drift"):
        yield f"{name.replace('_', ' '):<13} {_change(result[name])}"
    since = result["since"]
    if since is None:
        yield "since         there is none before that measured the same rows"
    else:
        yield f"since {since['name']}: {_change(since['change'])}"


def _change(change: Mapping[str, Any]) -> str:
    relative, sigma = change["relative"], change["sigma"]
    size = "no relative size" if relative is None else f"{100 * relative:.2f} %"
    return f"{size}, " + ("no scatter" if sigma is None else f"{sigma:.1f} sigma")


def _evaluation(result: Mapping[str, Any]) -> Iterator[str]:
    error = 100 * result["standard_error"]
    now = f"{100 * result['accuracy']:.1f} % (+- {error:.1f} %) of {result['samples']} samples"
    yield f"accuracy now             {now}"
    yield f"accuracy in its job      {100 * result['then']:.1f} %"
    if result["twin_error"] is not None and result["twin_error_then"] is not None:
        then = f"{result['twin_error_then']:.3f} in its job"
        yield f"twin's error             {result['twin_error']:.3f}, {then}"

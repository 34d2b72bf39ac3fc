"""What a comparison of training methods amounts to, as plain data.

Imports neither torch nor drivers.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lab.comparison.plan import Comparison, Outcome, Run, Sweep

_LEVEL = 0.9  # of the first method's final accuracy: where learning speed is compared


def compare(plan: Comparison, run: Run) -> dict[str, Any]:
    """Return the comparison as JSON data; with several gaps or twins, `{"runs": [...]}`."""
    return tables([summarise(plan, run(rows, gap)) for gap in plan.gaps for rows in plan.twin_rows])


def tables(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the only summary as it is, several as `{"runs": [...]}`."""
    return runs[0] if len(runs) == 1 else {"runs": list(runs)}


def summarise(plan: Sweep, outcome: Outcome) -> dict[str, Any]:
    """Return what one twin's runs amount to; accuracies from 0 to 1, on the device.

    rows, seconds and instrument_hours are totals over the seeds, with a list beside each.
    clamped_fraction and twin_error_task are means over the first method's runs.
    """
    plain = [r for r in outcome.results if r["control"] is None]
    by_method = {m: [r for r in plain if r["method"] == m] for m in plan.methods}
    first = by_method[plan.methods[0]]
    return {
        "system": plan.system,
        "task": plan.task,
        "split": plan.split,
        "gap": outcome.gap,
        "epochs": outcome.config["epochs"],
        "batch": outcome.config["batch"],
        "layers": outcome.config["network"]["layers"],
        "parallel": outcome.config["network"]["parallel"],
        "row_budget": outcome.config["rows"],
        "path": first[0]["path"],
        "quick": plan.quick,
        "train_images": first[0]["train_images"],
        "test_images": sum(map(sum, first[0]["confusion"])),
        "seeds": plan.seeds,
        "twin_rows": outcome.twin["rows"],
        "twin": dict(outcome.twin),
        "clamped_fraction": _mean([r["clamped_fraction"] for r in first]),
        "twin_error_task": _mean([r["twin_error_task"] for r in first]),
        "baseline": {"logistic_regression": _accuracy([r["baseline"] for r in first])},
        "methods": {
            method: _method(results) | _rows_to_level(results, first)
            for method, results in by_method.items()
        },
        "controls": {
            control: _control([r for r in outcome.results if r["control"] == control])
            for control in plan.controls
        },
    }


def _control(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not results:
        return {"mean": None, "reason": "this network has no physical parameters of its own"}
    clamped = [r["clamped_fraction"] for r in results]
    return {**_method(results), "clamped_fraction": _mean(clamped)}


def _method(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = _accuracy([r["test_accuracy"] for r in results])
    for key in ("rows", "seconds", "instrument_hours"):
        values = [r[key] for r in results]
        summary |= {key: sum(values), f"{key}_per_seed": values}
    for key in ("twin_accuracy", "spread_accuracy"):
        values = [r[key] for r in results]
        if None not in values:
            summary |= {key: values, f"{key}_mean": statistics.fmean(values)}
    summary["ledger_per_seed"] = [r["ledger"] for r in results]
    if results[0]["audits"]:
        summary["audits_per_seed"] = [r["audits"] for r in results]
    if results[0]["checks"]:
        summary["checks_per_seed"] = [r["checks"] for r in results]
    return summary


def _rows_to_level(
    results: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the rows to 90 % of the first method's final accuracy, by checks on validation rows.

    Of each seed, the twin's rows included; None where a run never gets there.
    """
    if not first[0]["checks"]:
        return {}
    level = _LEVEL * statistics.fmean(r["checks"][-1]["accuracy"] for r in first)
    return {
        "level": level,
        "rows_to_level_per_seed": [
            next((r["ledger"]["twin"] + rows for rows in _rows_above(r, level)), None)
            for r in results
        ],
    }


def _rows_above(result: Mapping[str, Any], level: float) -> list[int]:
    return [c["rows"] for c in result["checks"] if c["accuracy"] >= level]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _accuracy(values: Sequence[float]) -> dict[str, Any]:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {
        "accuracy": list(values),
        "mean": statistics.fmean(values),
        "min": min(values),
        "standard_error": error,
    }

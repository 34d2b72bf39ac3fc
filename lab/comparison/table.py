"""A comparison as text: one table for each twin, and what the twin's rows change."""

from collections.abc import Mapping, Sequence
from typing import Any

_RIGHT = {"mean", "min", "rows/run", "lab hours/run", "s/run"}


def comparison_text(comparison: Mapping[str, Any]) -> str:
    """Return what `lab.comparison.summary.compare` returned as lines for a terminal."""
    runs: Sequence[Mapping[str, Any]] = comparison.get("runs", [comparison])
    parts = [f"{heading(run)}\n\n{method_table(run)}" for run in runs]
    if len(runs) > 1:
        parts.append(f"What calibration changes (mean accuracy)\n\n{rows_table(runs)}")
    return "\n\n".join(parts)


def heading(run: Mapping[str, Any]) -> str:
    """Return what was compared, and how good the twin is."""
    gap = "a bench of unknown gap" if run["gap"] is None else f"gap {run['gap']:g}"
    trained = f"{run['epochs']} epochs" if run["row_budget"] is None else "equal hardware rows"
    passes = f" of {run['parallel']} passes" if run["parallel"] > 1 else ""
    return (
        f"{run['task']} on {run['system']}, {gap}, split {run['split']}: {run['layers']} "
        f"layers{passes}, {trained} of {run['train_images']:,} samples, measured by "
        f"{run['path']}{', quick' if run['quick'] else ''}\n{twin_text(run)}"
    )


def twin_text(run: Mapping[str, Any]) -> str:
    """Return the twin's rows and errors in one line."""
    twin = run["twin"]
    errors = [f"{percent(twin['random']['normalised'])} on random inputs"]
    if twin["task"] is not None:
        errors.append(f"{percent(twin['task']['normalised'])} on the task's")
    return (
        f"one {twin['kind']} twin fitted on {run['twin_rows']:,} rows "
        f"({twin['hardware_rows']:,} measured with those for its errors), "
        f"normalised error {' and '.join(errors)}"
    )


def method_table(run: Mapping[str, Any]) -> str:
    """Return accuracy and cost of each method, and the digital baseline below."""
    rows = [method_row(name, method) for name, method in run["methods"].items()]
    rows += [control_row(name, control) for name, control in run["controls"].items()]
    baseline = run["baseline"]["logistic_regression"]
    rows.append(accuracy_row("logistic regression", baseline))
    return align(rows)


def method_row(name: str, method: Mapping[str, Any]) -> dict[str, str]:
    """Return one method's cells; costs are those of one run."""
    runs = len(method["accuracy"])
    return {
        **accuracy_row(name, method),
        "twin says": percents(method["twin_accuracy"]) if "twin_accuracy" in method else "",
        "rows/run": f"{method['rows'] / runs:,.0f}",
        "lab hours/run": f"{method['instrument_hours'] / runs:.1f}",
        "s/run": f"{method['seconds'] / runs:.0f}",
    }


def control_row(name: str, control: Mapping[str, Any]) -> dict[str, str]:
    """Return one control's cells, or why there is none."""
    label = f"  {name.replace('_', ' ')}"
    if control["mean"] is None:
        return {"": label, "mean": "-", "min": "-", "each seed": control["reason"]}
    return {**method_row(label, control), "": label}


def accuracy_row(name: str, accuracy: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells that a method and the baseline have in common."""
    return {
        "": name,
        "mean": percent(accuracy["mean"]),
        "min": percent(accuracy["min"]),
        "each seed": percents(accuracy["accuracy"]),
    }


def rows_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean accuracy of each method by the twin's rows."""
    rows = [
        {
            "twin rows": f"{run['twin_rows']:,}",
            "twin error": percent(run["twin"]["random"]["normalised"]),
            **{name: percent(method["mean"]) for name, method in run["methods"].items()},
        }
        for run in runs
    ]
    return align(rows)


def percent(share: float) -> str:
    """Return a share of 1 in percent."""
    return f"{100 * share:.1f} %"


def percents(shares: Sequence[float]) -> str:
    """Return several shares of 1, the unit left to the heading."""
    return ", ".join(f"{100 * share:.1f}" for share in shares)


def align(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as columns of equal width, under the keys of the first row."""
    keys = list(rows[0])
    width = {key: max(len(key), *(len(row.get(key, "")) for row in rows)) for key in keys}

    def line(cells: Mapping[str, str]) -> str:
        aligned = [
            cells.get(key, "").rjust(width[key])
            if key in _RIGHT
            else cells.get(key, "").ljust(width[key])
            for key in keys
        ]
        return "  ".join(aligned).rstrip()

    rule = "  ".join("-" * width[key] for key in keys)
    return "\n".join([line({key: key for key in keys}), rule, *map(line, rows)])

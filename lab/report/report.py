"""A comparison as one self-contained HTML file: figures, result table, what was run."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lab.comparison.table import method_row, percent, percents, twin_text
from lab.report import figures
from lab.report.page import definitions, figure, page, section, table

Results = figures.Results


def write_report(
    path: Path | str,
    summary: Mapping[str, Any],
    results: Results,
    *,
    facts: Mapping[str, str],
    wavelengths_nm: Sequence[float] | None = None,
) -> None:
    """Write the report; folders are made where they are missing.

    summary:        what `lab.comparison.summary.summarise` returned (one twin).
    results:        every run's `TrainResult.as_dict`.
    facts:          what was run: names and values for the last section (versions, times, ...).
    wavelengths_nm: of the outputs, where they have any.

    Raises OSError where the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report(summary, results, facts, wavelengths_nm), encoding="utf-8")


def report(
    summary: Mapping[str, Any],
    results: Results,
    facts: Mapping[str, str],
    wavelengths_nm: Sequence[float] | None = None,
) -> str:
    """Return the page; see `write_report`."""
    title = f"{summary['task']} on {summary['system']}"
    sections = [
        section("Result", _accuracy_figure(summary, results), _result_table(summary)),
        section("Training", *_curves(results)),
        section("Mistakes", *_confusions(summary, results)),
        section("Device and twin", *_spectra(summary, results, wavelengths_nm)),
        section("What was run", definitions({**_setting(summary), **facts})),
    ]
    return page(title, finding(summary), sections)


def finding(summary: Mapping[str, Any]) -> str:
    """Return the result in a few sentences."""
    methods = summary["methods"]
    said = [
        f"{name} training: {percent(values['mean'])} on the device"
        + (
            f", although its own twin says {percent(values['twin_accuracy_mean'])}"
            if values.get("twin_accuracy_mean", 0.0) > values["mean"]
            else ""
        )
        for name, values in methods.items()
    ]
    baseline = summary["baseline"]["logistic_regression"]["mean"]
    return (
        f"{'; '.join(said)}. A plain digital classifier (logistic regression) reaches "
        f"{percent(baseline)}. Test accuracies, means of {summary['seeds']} seeds."
    )


def _accuracy_figure(summary: Mapping[str, Any], results: Results) -> str:
    chance = 1 / len(results[0]["classes"])
    alt = f"Test accuracy of each method and seed. {finding(summary)} Chance: {percent(chance)}."
    caption = (
        "Filled dots: the trained network measured on the device, one dot per seed; the bar is "
        "their mean. Open dots: what in-silico training believes, on its own twin."
    )
    return figure(figures.accuracy_per_method(summary, chance, name="accuracy", alt=alt), caption)


def _result_table(summary: Mapping[str, Any]) -> str:
    rows = [
        {**method_row(name, values), "": _named(name)}
        for name, values in summary["methods"].items()
    ]
    baseline = summary["baseline"]["logistic_regression"]
    rows.append(
        {
            "": "logistic regression",
            "mean": percent(baseline["mean"]),
            "min": percent(baseline["min"]),
            "each seed": percents(baseline["accuracy"]),
        }
    )
    note = (
        "Rows are forward passes through the hardware; lab hours are what they take with the "
        "settling and sweep times of the bench file. "
        f"Before all runs: {escape(twin_text(summary))}."
    )
    return table(rows, note)


def _named(method: str) -> str:
    return f'<span class="dot" style="background:{figures.COLOURS[method]}"></span>{method}'


def _curves(results: Results) -> list[str]:
    measured = "in-silico curves are those of its twin, the others are measured on the device"
    drawn = []
    for key in ("accuracy", "loss"):
        last = "; ".join(
            f"{r['method']} seed {r['seed']} ends at {_number(r['curve'][-1][key])}"
            for r in results
        )
        alt = f"Learning curves, {key} of the training batches by epoch: {last}."
        svg = figures.learning_curve(results, key, name=f"curve-{key}", alt=alt)
        drawn.append(figure(svg, f"{key.capitalize()} of the training batches; {measured}."))
    return drawn


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.2f}"


def _confusions(summary: Mapping[str, Any], results: Results) -> list[str]:
    drawn = []
    for method, values in summary["methods"].items():
        alt = (
            f"Confusion matrix of {method}, test samples summed over the seeds: "
            f"{percent(values['mean'])} are recognised."
        )
        caption = f"{method}: test samples on the device, summed over {summary['seeds']} seeds."
        svg = figures.confusion(results, method, name=f"confusion-{method}", alt=alt)
        drawn.append(figure(svg, caption))
    return drawn


def _spectra(
    summary: Mapping[str, Any], results: Results, wavelengths_nm: Sequence[float] | None
) -> list[str]:
    drawn = []
    for method in summary["methods"]:
        result = next(r for r in results if r["method"] == method)
        alt = f"Spectrum of one test sample after {method} training, and the twin's prediction."
        name = f"spectrum-{method}"
        svg = figures.spectrum(result, wavelengths_nm, name=name, alt=alt)
        state = "as refitted during training" if method == "pat-refit" else "as fitted"
        caption = (
            f"{method}, seed {result['seed']}: the last layer's output for one test sample, "
            f"measured, and predicted by the twin {state}."
        )
        drawn.append(figure(svg, caption))
    return drawn


def _setting(summary: Mapping[str, Any]) -> dict[str, str]:
    gap = "not known" if summary["gap"] is None else f"{summary['gap']:g} (0: the textbook)"
    return {
        "System": summary["system"],
        "Task": f"{summary['task']}, split {summary['split']}",
        "Gap of the simulated bench": gap,
        "Network": f"{summary['layers']} physical layers",
        "Training": f"{summary['epochs']} epochs, seeds 0 to {summary['seeds'] - 1}",
        "Twin": twin_text(summary),
    }

"""The figures of a report, as inline SVG: no pixels, no fonts and no addresses from outside.

Results are the dicts of `TrainResult.as_dict`. One colour per method, the same in every figure.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Results = Sequence[Mapping[str, Any]]

# After Okabe and Ito, "Color Universal Design" (2008): told apart with colour-blind eyes too.
COLOURS = {
    "pat-refit": "#0072b2",
    "pat": "#009e73",
    "in-silico": "#d55e00",
    "in-silico-noise": "#b4558f",
    "ideal": "#5c5c5c",
    "dfa": "#56b4e9",
    "spsa": "#e69f00",
    "pepg": "#a07800",
    "pat-sharpness": "#005a43",
    "phyll": "#8c3b00",
}
INK, FAINT, GRID, PAPER = "#1d2733", "#66707c", "#e3e7eb", "#fbfbfa"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "pnnlab",  # the same results give the same file
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
}
_WIDTH_IN = 4.6


def learning_curve(results: Results, key: str, *, name: str, alt: str) -> str:
    """Draw one metric of the training batches, "accuracy" or "loss", by epoch."""

    def draw(axes: Axes) -> None:
        for result in results:
            curve = result["curve"]
            axes.plot(
                [point["epoch"] for point in curve],
                np.array([point[key] for point in curve], dtype=float),  # None: not finite
                color=COLOURS[result["method"]],
                linestyle=_DASHES[result["seed"] % len(_DASHES)],
                linewidth=1.5,
                marker="o" if len(curve) == 1 else None,
                label=f"{result['method']}, seed {result['seed']}",
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{key} of the training batches")
        axes.set_ylim(bottom=0, top=1.02 if key == "accuracy" else None)
        axes.legend(fontsize=9, loc="lower right" if key == "accuracy" else "upper right")

    return _svg(draw, name=name, alt=alt, height_in=3.3)


def accuracy_per_method(summary: Mapping[str, Any], chance: float, *, name: str, alt: str) -> str:
    """Draw each seed's test accuracy on the device, and what in-silico training's twin says."""
    methods = summary["methods"]

    def draw(axes: Axes) -> None:
        for i, (method, values) in enumerate(methods.items()):
            _accuracy_row(axes, i, COLOURS[method], values)
        baseline = summary["baseline"]["logistic_regression"]["mean"]
        axes.axvline(100 * baseline, color=INK, linewidth=1.2, linestyle=_DASHES[1])
        axes.axvline(100 * chance, color=FAINT, linewidth=1.0, linestyle=_DASHES[2])
        axes.set_yticks(range(len(methods)), list(methods))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_xlim(0, 102)
        axes.set_xlabel("test accuracy, %")
        axes.grid(False, axis="y")
        axes.legend(
            handles=_accuracy_legend(), fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2
        )

    return _svg(draw, name=name, alt=alt, height_in=1.9 + 0.4 * len(methods))


def _accuracy_row(axes: Axes, row: int, colour: str, values: Mapping[str, Any]) -> None:
    device = 100 * np.array(values["accuracy"])
    axes.plot([device.mean()] * 2, [row - 0.27, row + 0.27], color=colour, linewidth=2.5)
    axes.plot(device, np.full(len(device), row), "o", color=colour, markersize=7, alpha=0.85)
    if "twin_accuracy" in values:
        claimed = 100 * np.array(values["twin_accuracy"])
        axes.plot(claimed, np.full(len(claimed), row), "o", color=colour, markersize=7, mfc="none")


def _accuracy_legend() -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 7, "color": FAINT}
    return [
        Line2D([], [], label="on the device, each seed", **dot),
        Line2D([], [], label="what its twin says", markerfacecolor="none", **dot),
        Line2D([], [], color=INK, linestyle=_DASHES[1], label="logistic regression"),
        Line2D([], [], color=FAINT, linestyle=_DASHES[2], label="chance"),
    ]


def confusion(results: Results, method: str, *, name: str, alt: str) -> str:
    """Draw the confusion matrix of one method, summed over its seeds: rows are the truth."""
    chosen = [result for result in results if result["method"] == method]
    classes = chosen[0]["classes"]
    table = np.sum([result["confusion"] for result in chosen], axis=0)
    shades = LinearSegmentedColormap.from_list("method", ["#f2f4f6", COLOURS[method]])

    def draw(axes: Axes) -> None:
        axes.pcolormesh(table, cmap=shades, vmin=0, edgecolors=PAPER, linewidth=1.5)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        for (i, j), count in np.ndenumerate(table):
            dark = count > 0.55 * table.max()
            colour = "white" if dark else INK
            if count:
                axes.text(
                    j + 0.5,
                    i + 0.5,
                    str(count),
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=9.5,
                )
        axes.set_xticks(np.arange(len(classes)) + 0.5, classes)
        axes.set_yticks(np.arange(len(classes)) + 0.5, classes)
        axes.tick_params(length=0, labelcolor=INK)
        axes.set_xlabel("recognised as")
        axes.set_ylabel("true class")
        axes.grid(False)
        axes.spines[:].set_visible(False)

    return _svg(draw, name=name, alt=alt, height_in=4.3)


def spectrum(
    result: Mapping[str, Any], wavelengths_nm: Sequence[float] | None, *, name: str, alt: str
) -> str:
    """Draw the last layer's output for one test sample: measured, and as the twin predicts."""
    measured, twin = (np.array(result["spectrum"][key]) for key in ("measured", "twin"))
    at = np.arange(len(measured)) if wavelengths_nm is None else np.array(wavelengths_nm)
    colour = COLOURS[result["method"]]

    def draw(axes: Axes) -> None:
        axes.fill_between(at, measured, color=colour, alpha=0.12, linewidth=0)
        axes.plot(at, measured, color=colour, linewidth=1.8, label="measured")
        axes.plot(
            at, twin, color=INK, linewidth=1.3, linestyle=_DASHES[1], label="twin's prediction"
        )
        axes.set_xlabel("output number" if wavelengths_nm is None else "wavelength, nm")
        axes.set_ylabel("power, share of full scale")
        axes.set_xlim(at[0], at[-1])
        axes.set_ylim(bottom=min(0.0, float(twin.min())))
        axes.legend(fontsize=9)

    return _svg(draw, name=name, alt=alt, height_in=3.1)


def accuracy_by_rows(runs: Results, *, title: str) -> str:
    """Draw the validation accuracy in training against hardware rows, twin's rows included.

    runs: comparisons (`lab.comparison.summary.summarise`) whose runs were checked in training; one
    line a method, the mean over its seeds. Returns a whole SVG document.
    """

    def draw(axes: Axes) -> None:
        for run in runs:
            for method, values in run["methods"].items():
                if values["rows"] and "checks_per_seed" in values:
                    _checked_line(axes, method, values)
        axes.set_xscale("log")
        axes.set_xlabel("hardware rows, twin's included")
        axes.set_ylabel("validation accuracy, %")
        axes.set_ylim(0, 102)
        axes.set_title(title, fontsize=10.5)
        axes.legend(fontsize=9)

    return _document(draw, height_in=3.6)


def _checked_line(axes: Axes, method: str, values: Mapping[str, Any]) -> None:
    twin = values["ledger_per_seed"][0]["twin"]
    seeds = values["checks_per_seed"]
    rows = twin + np.mean([[c["rows"] for c in checks] for checks in seeds], axis=0)
    accuracy = 100 * np.mean([[c["accuracy"] for c in checks] for checks in seeds], axis=0)
    colour = COLOURS[method]
    axes.plot(rows, accuracy, color=colour, linewidth=1.6, marker=".", label=method)


def accuracy_by_gap(runs: Results, *, title: str) -> str:
    """Draw each method's accuracy on the device against the gap, each seed a dot; an SVG document.

    runs: comparisons of several gaps.
    """

    def draw(axes: Axes) -> None:
        for method in runs[0]["methods"]:
            gaps = [run["gap"] for run in runs]
            seeds = 100 * np.array([run["methods"][method]["accuracy"] for run in runs])
            colour = COLOURS[method]
            axes.plot(gaps, seeds.mean(1), color=colour, linewidth=1.6, label=method)
            axes.plot(gaps, seeds, ".", color=colour, alpha=0.6)
        axes.set_xlabel("gap: 0 the textbook, 1 a real device")
        axes.set_ylabel("test accuracy on the device, %")
        axes.set_ylim(0, 102)
        axes.set_title(title, fontsize=10.5)
        axes.legend(fontsize=9)

    return _document(draw, height_in=3.6)


def _svg(draw: Callable[[Axes], None], *, name: str, alt: str, height_in: float) -> str:
    """Return a figure as an SVG element that scales with the page; `name` makes its ids unique."""
    return _inline(_document(draw, height_in=height_in, transparent=True), name, alt)


def _document(draw: Callable[[Axes], None], *, height_in: float, transparent: bool = False) -> str:
    """Return a figure as a whole SVG document."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=transparent, metadata={"Date": None})
    return buffer.getvalue()


def _inline(document: str, name: str, alt: str) -> str:
    """Cut an SVG document down to an element: no header, metadata or clashing ids."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    box = re.search(r'viewBox="([^"]+)"', body)
    if box is None:
        raise ValueError(f"figure {name}: matplotlib wrote an SVG without a viewBox")
    opening = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(alt)}">'
    return re.sub(r"<svg.*?>", opening.replace("\\", r"\\"), body, count=1, flags=re.DOTALL)

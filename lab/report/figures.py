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


def _svg(draw: Callable[[Axes], None], *, name: str, alt: str, height_in: float) -> str:
    """Return a figure as an SVG element that scales with the page; `name` makes its ids unique."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue(), name, alt)


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

"""The report: one file, nothing from outside, every figure described and in its method's colour."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.comparison.plan import Outcome, plan_comparison
from lab.comparison.summary import summarise
from lab.config import TrainConfig
from lab.report.figures import COLOURS
from lab.report.report import finding, report, write_report

CLASSES = ("ae", "ah", "iy")
PLAN = plan_comparison(methods=("pat-refit", "in-silico"), seeds=2, epochs=4)
ERROR = {"r2": 0.97, "normalised": 0.061, "shape_r2": 0.9}
TWIN = {"kind": "structured", "rows": 300, "hardware_rows": 500, "random": ERROR, "task": None}


def result(method: str, seed: int) -> dict[str, Any]:
    on_device = 0.9 if method == "pat-refit" else 0.4
    curve = [{"epoch": e, "loss": 1 / e, "accuracy": 0.2 * e} for e in range(1, 5)]
    return {
        "method": method,
        "control": None,
        "seed": seed,
        "classes": CLASSES,
        "test_accuracy": on_device + 0.02 * seed,
        "twin_accuracy": 0.95 if method == "in-silico" else None,
        "spread_accuracy": None,
        "clamped_fraction": 0.1,
        "twin_error_task": 0.05,
        "checks": [],
        "audits": [],
        "drifts": [],
        "ledger": {"training": 4000},
        "path": "wire",
        "train_images": 175,
        "baseline": 0.97,
        "confusion": [[7, 1, 0], [0, 8, 2], [3, 0, 9]],
        "curve": curve,
        "rows": 4000 if method == "pat-refit" else 0,
        "seconds": 12.5,
        "instrument_hours": 0.83 if method == "pat-refit" else 0.0,
        "spectrum": {
            "measured": np.linspace(0, 0.5, 50).tolist(),
            "twin": np.linspace(0, 0.4, 50).tolist(),
        },
    }


RESULTS = [result(method, seed) for method in PLAN.methods for seed in range(2)]
CONFIG = TrainConfig(epochs=4).model_dump(mode="json")
SUMMARY = summarise(PLAN, Outcome(TWIN, RESULTS, CONFIG, gap=1.0))
FACTS = {"Versions": "pnnlab <0.1>", "Data": "made up"}
WAVELENGTHS_NM = np.linspace(773.4, 776.6, 50).tolist()


class Page(HTMLParser):
    """What a browser would be told: tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return report(SUMMARY, RESULTS, FACTS, WAVELENGTHS_NM)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_comes_from_outside(html: str, page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "image"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#"), f"{tag} {name}={value}"
    assert "://" not in html
    assert "@import" not in html


def test_every_figure_is_described_and_scales(page: Page) -> None:
    drawn = page.all("svg")
    assert len(drawn) == 1 + 2 + 2 + 2  # accuracy, curves, a confusion and a spectrum per method
    for svg in drawn:
        assert svg["role"] == "img"
        assert len(svg["aria-label"] or "") > 40
        assert "viewbox" in svg
        assert "width" not in svg
    assert len(page.all("figcaption")) == len(drawn)


def test_ids_are_unique_and_references_meet_one(html: str, page: Page) -> None:
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    used = {a["xlink:href"] for _, a in page.tags if "xlink:href" in a}
    assert {f"#{i}" for i in ids} >= used
    for part in html.split("url(#")[1:]:
        assert part.partition(")")[0] in ids


def test_a_method_has_its_colour_everywhere(html: str) -> None:
    for method in PLAN.methods:
        # accuracy, both curves, its confusion and spectrum, and the dot in the table
        assert html.count(COLOURS[method]) >= 6


def test_it_says_what_came_out(page: Page) -> None:
    assert "pat-refit training: 91.0 % on the device" in page.words
    assert "in-silico training: 41.0 % on the device, although its own twin says 95.0 %" in (
        page.words
    )
    assert "(logistic regression) reaches 97.0 %" in page.words
    assert "normalised error 6.1 % on random inputs" in page.words
    assert "pnnlab <0.1>" in page.words
    for name in CLASSES:
        assert name in page.words
    # summed over two seeds
    assert "18" in page.words


def test_a_twin_that_is_right_is_not_called_wrong() -> None:
    methods = {"in-silico": {"mean": 0.9, "twin_accuracy_mean": 0.88}}
    text = finding({**SUMMARY, "methods": methods})
    assert "in-silico training: 90.0 % on the device." in text
    assert "although" not in text


def test_wavelengths_are_the_axis_where_known(html: str) -> None:
    assert "wavelength, nm" in html
    unknown = report(SUMMARY, RESULTS, FACTS)
    assert "wavelength, nm" not in unknown
    assert "output number" in unknown


def test_it_is_written_with_its_folder_and_always_the_same(tmp_path: Path, html: str) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(path, SUMMARY, RESULTS, facts=FACTS, wavelengths_nm=WAVELENGTHS_NM)
    assert path.read_text(encoding="utf-8") == html

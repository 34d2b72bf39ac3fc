"""A comparison as files: its table, its JSON, and its figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.comparison.table import comparison_text
from lab.jobs.data_folder import write_whole
from lab.report.figures import accuracy_by_gap, accuracy_by_rows


def write_comparison(folder: Path, comparison: Mapping[str, Any]) -> list[Path]:
    """Write what `lab.comparison.summary.compare` returned; return the files.

    table.txt and comparison.json; rows.svg (accuracy against hardware rows) where the training was
    checked; gap.svg (accuracy against the gap) where there are several gaps.
    """
    runs = comparison.get("runs", [comparison])
    title = f"{runs[0]['task']} on {runs[0]['system']}"
    files = {
        "table.txt": comparison_text(comparison) + "\n",
        "comparison.json": json.dumps(comparison),
    }
    if any("checks_per_seed" in method for run in runs for method in run["methods"].values()):
        files["rows.svg"] = accuracy_by_rows(runs[:1], title=title)
    if len({run["gap"] for run in runs}) > 1:
        one_twin = [run for run in runs if run["twin_rows"] == runs[0]["twin_rows"]]
        files["gap.svg"] = accuracy_by_gap(one_twin, title=title)
    return [_write(folder / name, content) for name, content in files.items()]


def _write(path: Path, content: str) -> Path:
    write_whole(path, lambda file: file.write(content.encode()))
    return path

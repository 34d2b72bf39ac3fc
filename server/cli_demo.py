"""The command `pnnlab demo`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from server.cli_bench import AsJson, BenchFile, find_bench
from server.cli_options import folder_to_write
from server.interrupts import ended_by_signals


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="One epoch: does it all work?")] = False,
    bench: BenchFile = None,
    as_json: AsJson = False,
) -> None:
    """Start a service on the simulated bench, train on it over REST, and write a report.

    Physics-aware training with a twin that keeps learning, beside in-silico training: two seeds
    each. The service is stopped at the end, and also on Ctrl-C.
    """
    path = find_bench(bench)
    folder_to_write(out, "--out")
    from lab.comparison.table import comparison_text
    from server.demo import run_demo

    with ended_by_signals():
        found = run_demo(path, out, quick=quick)
    if as_json:
        typer.echo(json.dumps({**found.summary, "report": str(found.report), "note": found.note}))
    else:
        typer.echo(f"{comparison_text(found.summary)}\n\nreport: {found.report}")

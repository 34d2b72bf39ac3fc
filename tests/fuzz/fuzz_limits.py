"""Ask for rows within and out of limits on every way there is, and count what arrives.

    python tests/fuzz/fuzz_limits.py [--rows N] [--seed S] [--entry NAME]

Exit code 1 if a far end has counted one value out of limits, if a bad row was sent or a good one
refused, if something had been sent when a refusal came, or if an entry logged no refusal.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import tensor_entries
from command_line import command_line
from driver_entry import drivers_directly
from limited_benches import FarEnds
from rest_entry import rest
from tally import Fuzz, Refusals, Tally

ENTRIES: dict[str, tuple[float, Callable[[Fuzz], None]]] = {  # their shares of all rows
    "drivers": (0.45, drivers_directly),
    "REST": (0.2, rest),
    "trainer": (0.12, tensor_entries.trainer),
    "SPSA, PEPG": (0.08, tensor_entries.spsa),
    "twin fit": (0.1, tensor_entries.twin_fit),
    "calibration": (0.04, tensor_entries.calibration),
    "command line": (0.01, command_line),
}


def run(rows: int, seed: int, only: str | None = None) -> Iterator[Tally]:
    """Yield the tallies of all entries, or of one."""
    torch.set_num_threads(1)
    for name, (share, entry) in ENTRIES.items():
        if only in (None, name):
            yield run_entry(name, max(1, round(share * rows)), seed, entry)


def run_entry(name: str, rows: int, seed: int, entry: Callable[[Fuzz], None]) -> Tally:
    """Return the tally of one entry."""
    far, refusals = FarEnds(), Refusals()
    fuzz = Fuzz(name, rows, seed, far)
    began = time.perf_counter()
    with far.watch(), refusals.listening():
        entry(fuzz)
    fuzz.tally.seconds = time.perf_counter() - began
    if fuzz.tally.refused and not refusals.logged:
        fuzz.tally.wrong.append(f"{name}: no refusal was logged")
    return fuzz.tally


HEAD = f"{'entry':12} {'rows':>9} {'bad':>9} {'refused':>9} {'sent':>9} {'far end':>8} {'s':>6}"


def line(t: Tally) -> str:
    """Return a tally as a line under HEAD."""
    return (
        f"{t.name:12} {t.rows:9} {t.bad:9} {t.refused:9} {t.sent:9} {t.out_of_limits:8} "
        f"{t.seconds:6.0f}"
    )


def total(tallies: list[Tally]) -> Tally:
    """Return the sums of all entries."""
    summed = Tally("all")
    for name in ("rows", "bad", "refused", "sent", "out_of_limits", "seconds"):
        setattr(summed, name, sum(getattr(t, name) for t in tallies))
    return summed


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Fuzz the limits on every way to a driver.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--entry", choices=list(ENTRIES), help="only this one")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.rows} rows", flush=True)
    print(HEAD)
    tallies = []
    for tally in run(arguments.rows, arguments.seed, arguments.entry):
        print(line(tally), flush=True)
        tallies.append(tally)
    print(line(total(tallies)))
    wrong = [text for t in tallies for text in t.wrong]
    for text in wrong[:20]:
        print(f"WRONG  {text}")
    if len(wrong) > 20:
        print(f"WRONG  and {len(wrong) - 20} more")
    return int(any(t.failed for t in tallies))


if __name__ == "__main__":
    sys.exit(main())

"""How long after a kill the far end of the wire is dark.

    python tests/benchmarks/guard_time.py [--json] [--kills N]

A pulse shaper's firmware stands behind HTTP in a process of its own; another process drives it as
a user's script does (`open_bench`), and is killed (SIGKILL) at a random moment of a pass. The time
runs from just before the kill to when the shaper blocks its light, by the machine's monotonic
clock. The promise is 3 s.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from driving import driving
from far_end import FarEnd, open_far_end

PROMISE_S = 3.0


def time_of_one(far_end: FarEnd, folder: Path, moment_s: float) -> float:
    """Kill a process that drives, after `moment_s` of its pass; return the time to the dark, s."""
    with driving(far_end.bench(), "in a pass", folder / "log") as (process, _):
        far_end.wait_until(blocked=False)
        time.sleep(moment_s)
        killed_s = time.monotonic()
        os.kill(process.pid or 0, signal.SIGKILL)
        return float(far_end.wait_until(blocked=True)["changed_s"]) - killed_s


def main() -> None:
    """Print the distribution."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    moments = random.Random(0)
    with open_far_end() as far_end, tempfile.TemporaryDirectory() as folder:
        times_s = sorted(
            time_of_one(far_end, Path(folder), moments.uniform(0, 0.05)) for _ in range(given.kills)
        )
    figures = {
        "kills": given.kills,
        "median_s": statistics.median(times_s),
        "longest_s": times_s[-1],
        "shortest_s": times_s[0],
        "within_promise": times_s[-1] <= PROMISE_S,
    }
    if given.json:
        print(json.dumps(figures))
    else:
        print(
            f"{given.kills} kills: dark after {figures['shortest_s']:.3f} to "
            f"{figures['longest_s']:.3f} s, median {figures['median_s']:.3f} s "
            f"(promise: {PROMISE_S:g} s)"
        )


if __name__ == "__main__":
    main()

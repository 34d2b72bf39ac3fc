"""Measure how a service ends by SIGTERM in the midst of a training, and what is done again after.

    python tests/kill/stop_time.py [--stops N] [--seed S]

On SQLite, the simulated bench on sockets, so that it can be asked whether it is safe. Goal: gone
within 5 s, the instruments safe. Rows that are measured again: those that the bench counts with
stops, without those that it counts without. Exit code 1 where a stop takes longer, or not all
instruments are safe after it.
"""

import argparse
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import httpx

from kill_training import SMALL, UNFINISHED, watch
from victims import Lab, open_lab

GOAL_S = 5.0
CONFIG = SMALL | {"method": "pat", "epochs": 25, "task": "vowels", "batch": 20}


def bench_states(lab: Lab) -> dict[str, dict[str, Any]]:
    """Return what the simulated instruments count, and whether they are safe."""
    found: dict[str, Any] = httpx.get(f"{lab.admin_url}/rigs/optics", trust_env=False).json()
    return found


def sweeps(lab: Lab) -> int:
    """Return how many rows were measured since the bench started."""
    return int(bench_states(lab)["spectrometer"]["sweeps"])


def stopped(lab: Lab, stops: int, rng: random.Random) -> tuple[list[float], int]:
    """Run a training with so many stops at most; return how long each took, s, and all rows.

    Raises RuntimeError for an end that was not in order, or not safe.
    """
    job, took, seen = lab.client.submit(CONFIG)["id"], list[float](), 0
    while len(took) < stops:
        while (now := lab.client.job(job))["state"] in UNFINISHED and now["last_step"] < seen + 1:
            time.sleep(0.05)
        now = watch(lab, job, time.monotonic() + rng.uniform(0, 0.3))
        if now["state"] not in UNFINISHED:
            break
        seen, began = now["last_step"], time.monotonic()
        lab.service.end(signal.SIGTERM)
        took.append(time.monotonic() - began)
        print(f"stopped at step {seen}: {took[-1]:.2f} s", flush=True)
        unsafe = [name for name, state in bench_states(lab).items() if not state.get("safe", True)]
        if unsafe:
            raise RuntimeError(f"not safe after SIGTERM: {', '.join(unsafe)}")
        lab.service.start()
        lab.service.ready()
    last = watch(lab, job, None)
    if last["state"] != "succeeded":
        raise RuntimeError(f"the training is {last['state']}: {last['error']}")
    return took, sweeps(lab)


def main() -> int:
    """Print the times, and the rows that were measured again."""
    parser = argparse.ArgumentParser(description="Stop a service in the midst of trainings.")
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(f"--stops {options.stops} --seed {options.seed}")
    counts, took = [], list[float]()
    for stops in (0, options.stops):
        with (
            TemporaryDirectory(prefix="pnnlab-stop-") as folder,
            open_lab(Path(folder), on_sockets=True) as lab,
        ):
            took, rows = stopped(lab, stops, rng)
            counts.append(rows)
    again = counts[1] - counts[0]
    print("from SIGTERM to gone and safe, s: " + ", ".join(f"{s:.2f}" for s in sorted(took)))
    print(f"{len(took)} stops of a training of {counts[0]} rows, {CONFIG['batch']} a step:")
    print(f"{again} rows measured again, {again / max(1, len(took)):.1f} a stop")
    return 1 if max(took, default=0.0) > GOAL_S else 0


if __name__ == "__main__":
    sys.exit(main())

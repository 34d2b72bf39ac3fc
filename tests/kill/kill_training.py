"""Kill at random moments of training jobs, and compare with runs that nobody killed.

    python tests/kill/kill_training.py [--kills N] [--seed S] [--task TASK]
                                       [--target service|trainer|bench] [--database sqlite|postgres]

One service runs the jobs in peace, on SQLite, its bench in memory. The same jobs run again, each in
a service of its own, on SQLite or PostgreSQL (at PNNLAB_TEST_DATABASE_URL), where one process is
sent SIGKILL (now and then SIGTERM) and started again: the service, the process in which the job
computes, or the simulated bench, which is on sockets then. Parameters, twin, metrics, ledger,
result and recorded rows must be equal bit for bit, but for seconds; whoever watches must be told
of every metric once; each job must end once, and shot numbers must only rise. Exit code 1 on any
difference.
"""

import argparse
import itertools
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from leavings import Leavings, Watcher, differences, leavings
from postgres import open_database, why_not
from victims import LIMIT_S, Lab, Target, kill_program, open_lab

Database = Literal["sqlite", "postgres"]
Plan = tuple[str, Database, Sequence[Target]]
"""A job's name, its database, and what is killed in it, one after the other."""
TARGETS: tuple[Target, ...] = get_args(Target)
DATABASES: tuple[Database, ...] = get_args(Database)
UNFINISHED = ("pending", "running")
_EACH = 4  # kills of a job, at most
_STARTING = 0.2  # of the services and benches that start again: killed while they do
_FURTHER = 0.5  # of the kills: not before the job has got further than it was at the last one
_FRUITLESS = 2  # deaths of a trainer without a metric in between; at the third its job fails
# A checkpoint every 0.1 s.
SMALL: dict[str, Any] = {
    "network": {"layers": 1},
    "twin": {"rows": 20, "kind": "neural"},
    "train_images": 60,
    "test_images": 20,
    "initial_rows": 20,
    "micro_batches": 1,
    "checkpoint_s": 0.1,
    "audit": True,
}
JOBS: dict[str, dict[str, Any]] = {
    "pat": {"method": "pat", "epochs": 30},
    "pat-refit, checks": {"method": "pat-refit", "epochs": 10, "checks": 3},
    "pat, 2 parts": {"method": "pat", "epochs": 8, "micro_batches": 2, "network": {"layers": 2}},
    "dfa": {"method": "dfa", "epochs": 10, "network": {"layers": 2}},
    "spsa": {"method": "spsa", "epochs": 5},
    "pepg": {"method": "pepg", "epochs": 2},
    "in-silico": {"method": "in-silico", "epochs": 150},
}


@dataclass
class Tally:
    """One job; moments: what was killed and where the job was then; wrong: what differs."""

    name: str
    database: Database
    targets: Sequence[Target]
    moments: list[tuple[Target, str]] = field(default_factory=list)
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def starting(self) -> int:
        """Get how many of the kills hit what was just starting."""
        return sum(where == "starting" for _, where in self.moments)


@dataclass
class KilledRun:
    """One job on a lab of its own whose processes are killed, one after the other."""

    lab: Lab
    job: str
    rng: random.Random
    moments: list[tuple[Target, str]] = field(default_factory=list)
    shot: int = -1
    furthest: int = 0
    fruitless: int = 0

    def kill(self, target: Target) -> bool:
        """Kill one process in the midst of whatever it does; say whether it was there."""
        where = _moment(self.lab, self.job)
        step = self.lab.client.job(self.job)["last_step"]
        self.fruitless = 0 if step > self.furthest else self.fruitless
        self.furthest = max(step, self.furthest)
        if target == "trainer":
            return self._kill_trainer(where)
        program = self.lab.service if target == "service" else self.lab.bench
        said = kill_program(program, self.rng, while_starting=_STARTING)
        self.moments += [(target, where + said[0]), *((target, "starting") for _ in said[1:])]
        first = self.lab.client.system("optics")["status"]["next_shot"]
        if first < self.shot:
            raise AssertionError(f"shot number {first} comes after {self.shot}")
        self.shot = first
        return True

    def _kill_trainer(self, where: str) -> bool:
        pids = self.lab.trainers()
        if not pids or self.fruitless >= _FRUITLESS:
            return False
        os.kill(pids[0], self.rng.choice([signal.SIGKILL] * 4 + [signal.SIGTERM]))
        self.fruitless += 1
        self.moments.append(("trainer", where))
        return True


def killed_run(
    lab: Lab, config: dict[str, Any], targets: Sequence[Target], run_s: float, rng: random.Random
) -> tuple[Leavings, list[tuple[Target, str]], list[str]]:
    """Run a job and kill these, one after the other, until it has ended.

    Return what it leaves, what was killed where, and what its watcher found wrong.
    """
    job = lab.client.submit(config)["id"]
    run, watcher, left = KilledRun(lab, job, rng), Watcher(lab.url, job), list(targets)
    while left:
        if rng.random() < _FURTHER:
            watch(lab, job, None, beyond=run.furthest)
        last = watch(lab, job, time.monotonic() + rng.uniform(0, run_s / 3))
        if last["state"] not in UNFINISHED:
            break
        if run.kill(left[0]):
            del left[0]
    last = watch(lab, job, None)
    if set(targets) == {"service"}:  # it has ended, whoever dies now
        run.kill("service")
    found = leavings(lab, job)
    wrong = watcher.wrong(found)
    if lab.client.job(job) != last or len(lab.client.jobs()) != 1 or len(lab.client.twins()) != 1:
        wrong.append("it has ended more than once")
    return found, run.moments, wrong


def watch(lab: Lab, job: str, until: float | None, beyond: float = math.inf) -> dict[str, Any]:
    """Look at a job until it has ended, the moment has come or its step is beyond; return it."""
    limit = time.monotonic() + LIMIT_S
    while True:
        found = lab.client.job(job)
        if found["state"] not in UNFINISHED or found["last_step"] > beyond:
            return found
        if until is not None and time.monotonic() >= until:
            return found
        if time.monotonic() > limit:
            raise AssertionError(f"job {job} does not end: {found}")
        time.sleep(0.05)


def _moment(lab: Lab, job: str) -> str:
    """Say where a job is."""
    record = lab.client.job(job)
    if record["state"] not in UNFINISHED:
        return "ended"
    metrics = lab.client.metrics(job, since=max(0, record["last_step"] - 1))
    if not metrics:
        return "before its first metric"
    last = metrics[-1]["metric"]
    return "fit" if last["kind"] == "fit" else f"step {last['step']}"


def kill_jobs(plans: Iterable[Plan], seed: int, task: str) -> Iterator[Tally]:
    """Yield a tally for each plan, before the next one is asked for."""
    rng = random.Random(seed)
    with TemporaryDirectory(prefix="pnnlab-kill-") as parent, ExitStack() as stack:
        peaceful = Path(parent, "peace")
        peaceful.mkdir()
        peace = stack.enter_context(open_lab(peaceful))
        for number, (name, database, targets) in enumerate(plans):
            # each fits a twin of its own
            twin = {**SMALL["twin"], "seed": number}
            config = {**SMALL, **JOBS[name], "task": task, "twin": twin}
            tally, began = Tally(name, database, targets), time.monotonic()
            job = peace.client.submit(config)["id"]
            watch(peace, job, None)
            run_s, expected = time.monotonic() - began, leavings(peace, job)
            folder = Path(parent, str(number))
            folder.mkdir()
            with ExitStack() as own:
                url = own.enter_context(open_database()) if database == "postgres" else None
                lab = own.enter_context(
                    open_lab(folder, on_sockets="bench" in targets, database=url)
                )
                found, tally.moments, wrong = killed_run(lab, config, targets, run_s, rng)
            tally.wrong = [*differences(expected, found), *wrong]
            tally.seconds = time.monotonic() - began
            yield tally


def plans(
    targets: Sequence[Target], databases: Sequence[Database], kills: list[int]
) -> Iterator[Plan]:
    """Yield jobs for every combination in turn, until none of the `kills` (one number) is left."""
    combinations = itertools.cycle(itertools.product(databases, targets))
    for name, (database, target) in zip(itertools.cycle(JOBS), combinations, strict=False):
        if kills[0] <= 0:
            return
        yield name, database, [target] * min(_EACH, kills[0])


def _print_table(tallies: Sequence[Tally]) -> None:
    print(f"\n{'killed':9} {'database':9} {'kills':>5} {'starting':>8} {'jobs':>5} {'differ':>6}")
    rows: dict[tuple[str, str], Counter[str]] = {}
    for tally in tallies:
        row = rows.setdefault((tally.targets[0], tally.database), Counter())
        row.update(
            kills=len(tally.moments),
            starting=tally.starting,
            jobs=1,
            differ=bool(tally.wrong),
        )
    rows[("all", "")] = sum(rows.values(), Counter())
    for (target, database), row in rows.items():
        numbers = f"{row['kills']:5} {row['starting']:8} {row['jobs']:5} {row['differ']:6}"
        print(f"{target:9} {database:9} {numbers}")


def main() -> int:
    """Print a line for every job, and the table."""
    parser = argparse.ArgumentParser(description="Kill in the midst of trainings.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--task", default="vowels")
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--database", choices=DATABASES, action="append")
    options = parser.parse_args()
    databases = options.database or DATABASES
    if "postgres" in databases and why_not() is not None:
        print(f"PostgreSQL is left out: {why_not()}")
        databases = ["sqlite"]
    left, tallies = [options.kills], []
    print(f"--task {options.task} --seed {options.seed}")
    print(f"{'job':18} {'database':9} {'kills':>5} {'s':>5}  outcome, killed at")
    for tally in kill_jobs(
        plans(options.target or TARGETS, databases, left), options.seed, options.task
    ):
        tallies.append(tally)
        left[0] -= len(tally.moments)
        said = "differs in " + ", ".join(tally.wrong) if tally.wrong else "equal"
        moments = ", ".join(f"{target} at {where}" for target, where in tally.moments)
        count = f"{len(tally.moments):5} {tally.seconds:5.0f}"
        print(f"{tally.name:18} {tally.database:9} {count}  {said}; {moments}")
        sys.stdout.flush()
    _print_table(tallies)
    return 1 if any(tally.wrong for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())

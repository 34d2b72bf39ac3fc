"""The guard of a bench: a small process that makes it safe once its driver is gone or hangs.

`lab.guarding` starts it as `python -m lab.guard`, beside the process that drives the bench, and
writes to its standard input: a line of JSON (`Order`), then heartbeats, at last "dismissed". The
end of that input, a change of the parent process (its children may hold the pipe open), a longer
silence than the watchdog's or "trip REASON" make it act: it connects to every instrument that is
not simulated in memory, in parallel, and brings it to its safe state. Then it ends.

No torch here: it has to be there before anything is driven.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from drivers.errors import reason
from lab.bench_config import BenchConfig, InstrumentConfig
from lab.openers import open_instrument

READY, BEAT, DISMISSED, TRIP = "ready", "beat", "dismissed", "trip "
LOOK_S = 0.1  # between two looks at the parent
TIMEOUT_S = 1.0  # of one wire call; no longer than the bench file says
PERSISTS_S = 20.0  # in trying an instrument that does not answer
PAUSE_S = 0.2  # between two tries

Lines = queue.SimpleQueue[str | None]


@dataclass(frozen=True)
class Order:
    """What a guard is told: the bench, whose process it watches, how long that may be silent."""

    bench: BenchConfig
    parent: int
    watchdog_s: float
    log: Path

    def as_line(self) -> str:
        """Return it as one line of JSON."""
        plain = {"bench": self.bench.model_dump(mode="json"), "parent": self.parent}
        return json.dumps({**plain, "watchdog_s": self.watchdog_s, "log": str(self.log)})

    @staticmethod
    def from_line(line: str) -> "Order":
        """Read what `as_line` wrote."""
        plain = json.loads(line)
        bench = BenchConfig.model_validate(plain["bench"])
        return Order(bench, plain["parent"], plain["watchdog_s"], Path(plain["log"]))


def guarded_instruments(bench: BenchConfig) -> dict[str, InstrumentConfig]:
    """Return the instruments that outlive the process that drives them, by name."""
    return {name: part for name, part in bench.instruments.items() if not part.is_in_memory}


def reason_to_act(lines: Lines, parent: int, watchdog_s: float) -> str | None:
    """Wait until the bench has to be made safe and return why; None: dismissed."""
    heard_s = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=LOOK_S)
        except queue.Empty:
            pass
        else:
            if line is None:
                return f"process {parent} is gone"
            if line == DISMISSED:
                return None
            if line.startswith(TRIP):
                return line.removeprefix(TRIP)
            heard_s = time.monotonic()
        if os.getppid() != parent:
            return f"process {parent} is gone"
        if time.monotonic() - heard_s > watchdog_s:
            return f"process {parent} has been silent for {watchdog_s:g} s"


def make_safe(bench: BenchConfig, persists_s: float = PERSISTS_S) -> dict[str, str]:
    """Bring every instrument to its safe state, in parallel; return "safe" or why not, by name."""
    names = list(guarded_instruments(bench))
    outcomes = dict.fromkeys(names, "no answer")
    until_s = time.monotonic() + persists_s

    def work(name: str) -> None:
        outcomes[name] = _make_one_safe(bench, name, until_s)

    # daemons: one that hangs must not keep the guard, when the others are safe
    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s + 2 * TIMEOUT_S - time.monotonic()))
    return dict(outcomes)


def _make_one_safe(bench: BenchConfig, name: str, until_s: float) -> str:
    part = bench.instruments[name]
    quick = part.model_copy(update={"timeout_s": min(part.timeout_s, TIMEOUT_S)})
    config = bench.model_copy(update={"instruments": {**bench.instruments, name: quick}})
    while True:
        try:
            open_instrument(config, name, {}).close()
        except Exception as error:  # whatever it is, the next try may do better
            if time.monotonic() > until_s:
                return "not confirmed: " + reason(error).removeprefix(f"{name}: ")
            time.sleep(PAUSE_S)
        else:
            return "safe"


def _read(source: IO[str], lines: Lines) -> None:
    for line in source:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _report(log: Path, text: str) -> None:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{stamp} {text}\n")


def main() -> None:
    """Guard until dismissed, or until the bench has been made safe."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # meant for the process beside it
        if hasattr(signal, name):
            signal.signal(signal.Signals[name], signal.SIG_IGN)
    first = sys.stdin.readline()
    if not first:
        return
    order = Order.from_line(first)
    lines: Lines = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, lines), daemon=True).start()
    print(READY, flush=True)
    reason = reason_to_act(lines, order.parent, order.watchdog_s)
    if reason is not None:
        outcomes = make_safe(order.bench)
        listed = "; ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())
        _report(order.log, f"guard of {order.bench.name}: {reason}; {listed}")


if __name__ == "__main__":
    main()
    # a thread that hangs in a library must not keep the process
    os._exit(0)

"""A dry run of the checks: every command is shown instead of being sent."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drivers.wires.tap import Event
from lab.bench_config import load_bench
from lab.bringup import Check
from lab.rehearsal import rehearsed
from server.check import check_bench

BEGIN = "dry run: no connection is opened; simulated counterparts answer in the instruments' place"


@dataclass(frozen=True)
class Command:
    """What would be sent to one instrument: shown on one line, and the length of its payload."""

    instrument: str
    command: str
    bytes: int


def dry_run(path: Path) -> Generator[tuple[Check, list[Command]], None, None]:
    """Yield each check with the commands that it would have sent, in order.

    Numbers of a check are those of a simulation. Raises ConfigError for a bench file that cannot
    be used, or with a driver that has no simulated counterpart.
    """
    real = load_bench(path)
    commands: list[Command] = []

    def hear(instrument: str, event: Event) -> None:
        if event.what == "opened":
            address = real.instruments[instrument].address
            commands.append(Command(instrument, f"(connect to {address})", 0))
        elif event.what == "sent":
            commands.append(Command(instrument, str(event), len(event.data)))

    checks = check_bench(rehearsed(real), tap=lambda name: partial(hear, name))
    with closing(checks):
        for check in checks:
            yield check, commands.copy()
            commands.clear()
    if commands:
        yield Check("close", real.name, "", True, "instruments released"), commands


def lines(check: Check, commands: Sequence[Command]) -> list[str]:
    """Return a check and its commands as text; a series that repeats itself is shown once."""
    where = f"{check.system}/{check.instrument}" if check.instrument else check.system
    shown = [f"  {c.instrument}: {c.command}" for c in commands]
    for length in range(1, len(shown) // 2 + 1):
        times, rest = divmod(len(shown), length)
        if not rest and shown[:length] * times == shown:
            shown = [*shown[:length], f"  ... {times} times in all"]
            break
    failed = (
        [f"  stops here, by the simulated counterpart: {check.detail}"] if broken(check) else []
    )
    return [f"{where}: {check.check}", *shown, *failed] if shown or failed else []


def broken(check: Check) -> bool:
    """Say whether a check could not go to its end, so that commands may be missing."""
    return not check.ok and check.value is None

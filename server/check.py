"""Check a bench: is every instrument the expected one, and are its systems' numbers sound?"""

from collections.abc import Callable, Generator
from pathlib import Path

from drivers.errors import DriverError, reason
from drivers.wires.tap import Tap
from lab.bench import open_bench
from lab.bench_config import BenchConfig, load_bench
from lab.bringup import Check, bring_up, permitted
from lab.errors import NotPermitted


def check_bench(
    bench: Path | BenchConfig, tap: Callable[[str], Tap] | None = None
) -> Generator[Check, None, None]:
    """Yield the checks of every system one after the other; failures are results.

    The instruments end in their safe state. tap: who listens on each instrument's wire
    (`lab.bench`). Raises ConfigError for a bench file that cannot be used.
    """
    config = bench if isinstance(bench, BenchConfig) else load_bench(bench)
    expected = {name: part.expect_idn for name, part in config.instruments.items()}
    try:
        with open_bench(bench, start=False, tap=tap) as opened:
            yield from permitted(config.name, opened.protection.permits)
            for system in opened.systems.values():
                yield from bring_up(system, expected)
    except (DriverError, NotPermitted, ExceptionGroup) as error:
        # on the way to the safe state, or while connecting
        yield Check("bench", config.name, "", False, reason(error))


def line(check: Check) -> str:
    """Return a check as one line: the verdict, what, the number, the limits it was judged by."""
    where = f"{check.system}/{check.instrument}" if check.instrument else check.system
    return (
        f"{'pass' if check.ok else 'FAIL'}  {where}: {check.check}: {_number(check)}{check.detail}"
    )


def _number(check: Check) -> str:
    if check.value is None:
        return ""
    low, high = check.low, check.high
    if low is not None and high is not None:
        limits = f" ({low:.4g} to {high:.4g})"
    elif high is not None:
        limits = f" (at most {high:.4g})"
    else:
        limits = "" if low is None else f" (at least {low:.4g})"
    return f"{check.value:.4g} {check.unit}{limits}; "

"""Bring instruments to their safe state side by side: one that hangs keeps no other from it."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from drivers.errors import DriverError
from drivers.instrument import Instrument

DARK_WITHIN_S = 1.0
"""For so long the other instruments wait for those that have to go dark first."""


def shut_down(
    system: str, instruments: Sequence[Instrument], dark_first: Sequence[Instrument] = ()
) -> None:
    """Shut the instruments of a system down: `dark_first` before the others, else in parallel.

    Returns when each has answered or failed. Raises an ExceptionGroup of DriverErrors, one for
    each instrument whose safe state is not confirmed.
    """
    if len(instruments) < 2:
        errors = [_attempt(i) for i in instruments]
    else:
        with ThreadPoolExecutor(len(instruments), "safe-state") as threads:
            first = [threads.submit(_attempt, i) for i in dark_first]
            wait(first, DARK_WITHIN_S)
            rest = [threads.submit(_attempt, i) for i in instruments if i not in dark_first]
        errors = [done.result() for done in first + rest]
    if found := [error for error in errors if error is not None]:
        raise ExceptionGroup(f"{system}: safe state not confirmed", found)


def _attempt(instrument: Instrument) -> DriverError | None:
    try:
        instrument.shutdown()
    except DriverError as error:
        return error
    except Exception as error:
        wrapped = DriverError(instrument.name, f"shutdown: {error!r}")
        wrapped.__cause__ = error
        return wrapped
    return None


def in_parallel(calls: Iterable[Callable[[], object]]) -> None:
    """Make all calls, each in a thread of its own, to their ends; raise what went wrong in one.

    Several errors are raised as an ExceptionGroup.
    """
    calls = list(calls)
    if not calls:
        return
    with ThreadPoolExecutor(len(calls), "safe-state") as threads:
        done = [threads.submit(call) for call in calls]
    errors = [error for each in done if (error := each.exception()) is not None]
    if len(errors) > 1:
        raise BaseExceptionGroup("safe state not confirmed", errors)
    if errors:
        raise errors[0]

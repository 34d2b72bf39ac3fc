"""The safe state of several instruments: side by side, light first, a hanging one alone."""

import threading

import pytest

from drivers.errors import DriverError, InstrumentTimeout
from lab import safe_state
from lab.safe_state import in_parallel, shut_down

LIMIT_S = 10.0


class FakeInstrument:
    """Shut down once it is let; write down the order."""

    def __init__(self, name: str, order: list[str], error: Exception | None = None) -> None:
        self.name, self.order, self.error = name, order, error
        self.may, self.done = threading.Event(), threading.Event()
        self.may.set()

    def shutdown(self) -> None:
        assert self.may.wait(LIMIT_S)
        self.order.append(self.name)
        self.done.set()
        if self.error is not None:
            raise self.error


@pytest.fixture
def order() -> list[str]:
    return []


def test_a_hanging_one_keeps_no_other_from_it(order) -> None:
    hanging, *others = instruments = [FakeInstrument(name, order) for name in "abc"]
    hanging.may.clear()
    thread = threading.Thread(target=shut_down, args=("rig", instruments))
    thread.start()
    assert all(other.done.wait(LIMIT_S) for other in others)
    assert not hanging.done.is_set()
    hanging.may.set()
    thread.join(LIMIT_S)
    assert order[-1] == "a"


def test_light_goes_first_and_is_waited_for(order) -> None:
    instruments = [FakeInstrument(name, order) for name in "abc"]
    instruments[0].may.clear()
    thread = threading.Thread(target=shut_down, args=("rig", instruments, instruments[:1]))
    thread.start()
    instruments[0].may.set()
    thread.join(LIMIT_S)
    assert order[0] == "a"
    assert sorted(order) == ["a", "b", "c"]


def test_light_that_hangs_is_not_waited_for_for_long(order, monkeypatch) -> None:
    monkeypatch.setattr(safe_state, "DARK_WITHIN_S", 0.01)
    light, *others = instruments = [FakeInstrument(name, order) for name in "abc"]
    light.may.clear()
    thread = threading.Thread(target=shut_down, args=("rig", instruments, (light,)))
    thread.start()
    assert all(other.done.wait(LIMIT_S) for other in others)
    light.may.set()
    thread.join(LIMIT_S)
    assert order[-1] == "a"


def test_what_is_not_confirmed_is_told_by_instrument(order) -> None:
    errors = [InstrumentTimeout("a", "no answer"), None, ValueError("oops")]
    instruments = [FakeInstrument(*args) for args in zip("abc", [order] * 3, errors, strict=True)]
    with pytest.raises(ExceptionGroup, match="rig: safe state not confirmed") as caught:
        shut_down("rig", instruments)
    assert [error.instrument for error in caught.value.exceptions] == ["a", "c"]
    assert all(isinstance(error, DriverError) for error in caught.value.exceptions)
    assert "oops" in str(caught.value.exceptions[1])
    assert sorted(order) == ["a", "b", "c"]


def test_several_calls_are_all_made_and_their_errors_kept() -> None:
    made: list[int] = []

    def fail(number: int) -> None:
        made.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        in_parallel([lambda: fail(1), lambda: made.append(2)])
    with pytest.raises(ExceptionGroup) as caught:
        in_parallel([lambda: fail(3), lambda: fail(4)])
    assert len(caught.value.exceptions) == 2
    assert sorted(made) == [1, 2, 3, 4]
    in_parallel([])

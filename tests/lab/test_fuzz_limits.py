"""`make fuzz`, with fewer rows; and that it sees where a check is missing."""

from typing import Any

import numpy as np
import pytest

import drivers.spec
import rest_entry
from drivers.limits import RowLimit
from drivers.spec import ArraySpec
from fuzz_limits import ENTRIES, Tally, main, run, run_entry
from lab.systems.base import PhysicalSystem

ROWS = 2000


def test_nothing_out_of_limits_reaches_a_far_end() -> None:
    tallies = list(run(ROWS, seed=1))
    assert [t.name for t in tallies] == list(ENTRIES)
    assert [line for t in tallies for line in t.wrong] == []
    assert [t.out_of_limits for t in tallies] == [0] * len(tallies)
    assert sum(t.rows for t in tallies) >= ROWS
    for t in tallies:
        assert t.refused + t.sent == t.rows
        assert min(t.bad, t.sent) > 0, t


def found(entry: str, rows: int) -> Tally:
    return run_entry(entry, rows, 1, ENTRIES[entry][1])


def unchecked(spec: ArraySpec, values: Any, *, instrument: str, first_row: int = 0) -> Any:
    return spec._as_array(values, instrument)


def test_it_sees_that_ranges_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ArraySpec, "check", unchecked)
    with np.errstate(all="ignore"):  # the plants were not made for this
        tally = found("drivers", 600)
    assert tally.out_of_limits > 0
    assert any("sent, though out of limits" in line for line in tally.wrong)
    assert tally.failed


def test_it_sees_that_rows_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowLimit, "first_beyond", lambda *_: None)
    for entry in ("drivers", "trainer", "twin fit"):
        assert found(entry, 400).out_of_limits > 0


def test_it_sees_a_value_that_is_written_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers.spec, "_rounded", lambda end, *_: end)
    assert found("drivers", 4000).out_of_limits > 0


def test_it_sees_a_value_that_is_rounded_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ArraySpec, "_as_sent", lambda _, values: values)
    assert found("drivers", 400).out_of_limits > 0


def test_it_sees_that_something_is_sent_before_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PhysicalSystem, "check", lambda _, x, theta: (x, theta))
    # where a row is an instrument call
    monkeypatch.setattr(rest_entry, "SHARES", {"circuit": 0.0, "plate": 0.0, "optics": 1.0})
    with np.errstate(all="ignore"):
        tally = found("REST", 300)
    assert tally.out_of_limits == 0  # the drivers see to that
    assert any("had been sent" in line for line in tally.wrong)


def test_it_ends_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--rows", "1000", "--entry", "drivers", "--seed", "3"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("seed 3, 1000 rows\n")
    monkeypatch.setattr(ArraySpec, "check", unchecked)
    with np.errstate(all="ignore"):
        assert main() == 1
    assert "WRONG  drivers, " in capsys.readouterr().out

"""What an error says on one line, and which ones a log shows the trace of."""

import pytest

from drivers.errors import ConnectionLost, InstrumentTimeout, parts, reason
from lab.errors import SystemFaulted
from lab.traces import trace_of

SILENT = InstrumentTimeout("osa", "*IDN?: no answer\nwithin 2 s")
GONE = ConnectionLost("shaper", "blockall: closed")
BOTH = ExceptionGroup("not safe", [SILENT, GONE])
STRANGE = ExceptionGroup("not safe", [SILENT, KeyError("lines")])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SILENT, "osa: *IDN?: no answer within 2 s"),
        (BOTH, "not safe: osa: *IDN?: no answer within 2 s; shaper: blockall: closed"),
        (KeyError("lines"), "KeyError: 'lines'"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_reason_is_one_line(error: Exception, says: str) -> None:
    assert reason(error) == says


def test_a_reason_has_the_notes_and_parts_leave_the_groups_title_out() -> None:
    error = SystemFaulted("optics is faulted")
    error.add_note(f"safe state not confirmed: {parts(BOTH)}")
    assert reason(error) == (
        "optics is faulted; safe state not confirmed: "
        "osa: *IDN?: no answer within 2 s; shaper: blockall: closed"
    )


def test_only_what_nobody_expects_has_its_trace_in_the_log() -> None:
    for told in (SILENT, SystemFaulted("optics is faulted"), BOTH):
        assert trace_of(told) is None
    strange = trace_of(STRANGE)
    assert isinstance(strange, ExceptionGroup)
    assert [type(part) for part in strange.exceptions] == [KeyError]
    unexpected = ZeroDivisionError()
    assert trace_of(unexpected) is unexpected

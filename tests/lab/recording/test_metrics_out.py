"""Metrics as a table and as a labelled dataset."""

import csv
import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.jobs.records import MetricRecord
from lab.recording.metrics_csv import csv_lines
from lab.recording.reading import metrics_dataset

METRICS = [
    {"kind": "fit", "done": 1, "of": 3, "loss": 0.5},
    {"kind": "epoch", "epoch": 1, "step": 4, "loss": 0.1 + 0.2, "seconds": 1.5},
    {"kind": "audit", "step": 4, "cosine": None, "refit": True, "parts": [1, 2]},
    {"kind": "epoch", "epoch": 2, "step": 8, "loss": None, "seconds": 3.0},
]


def paged(metrics, size: int = 2):
    """Return a job's metrics by pages, as the store does."""
    records = [MetricRecord(n, metric) for n, metric in enumerate(metrics, 1)]
    return lambda since: [record for record in records if record.step > since][:size]


def lines(metrics, kind: str | None = None) -> str:
    """Return the table with plain ends of lines (RFC 4180 has CR LF)."""
    return "".join(csv_lines(paged(metrics), kind)).replace("\r\n", "\n")


def test_the_columns_are_those_of_all_kinds_in_the_order_of_their_coming():
    assert lines(METRICS) == (
        "number,kind,done,of,loss,epoch,step,seconds,cosine,refit,parts\n"
        "1,fit,1,3,0.5,,,,,,\n"
        "2,epoch,,,0.30000000000000004,1,4,1.5,,,\n"
        '3,audit,,,,,4,,,true,"[1, 2]"\n'
        "4,epoch,,,,2,8,3.0,,,\n"
    )


def test_of_one_kind_only_its_columns_are_there():
    assert lines(METRICS, "epoch") == (
        "number,kind,epoch,step,loss,seconds\n"
        "2,epoch,1,4,0.30000000000000004,1.5\n"
        "4,epoch,2,8,,3.0\n"
    )
    assert lines(METRICS, "none") == "number,kind\n"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.text())
def test_numbers_and_texts_read_back_exactly(losses, text):
    metrics = [{"kind": "epoch", "loss": loss, "said": text} for loss in losses]
    found = list(csv.DictReader(io.StringIO("".join(csv_lines(paged(metrics))), newline="")))
    assert [float(row["loss"]) for row in found] == losses
    assert all(row["said"] == text for row in found)


def test_what_comes_meanwhile_is_left_to_the_next_time():
    metrics = METRICS[:2]
    table = csv_lines(lambda since: paged(metrics)(since))
    next(table)
    metrics.append({"kind": "late", "loss": 1.0, "new": 1})
    assert len(list(table)) == 2


def test_a_dataset_has_the_metrics_of_a_kind_with_units():
    answer = [{"step": n, "metric": metric} for n, metric in enumerate(METRICS, 1)]
    found = metrics_dataset(answer, "epoch")
    assert found.number.values.tolist() == [2, 4]
    assert found.epoch.dtype == np.int64
    assert found.step.values.tolist() == [4, 8]
    np.testing.assert_array_equal(found.loss, [0.1 + 0.2, np.nan])
    assert found.seconds.units == "s"
    audit = metrics_dataset(answer, "audit")
    assert audit.refit.values.tolist() == [True]
    assert np.isnan(audit.cosine).all()
    assert audit.parts.values.tolist() == ["[1, 2]"]
    assert metrics_dataset(answer, "none").sizes == {"number": 0}

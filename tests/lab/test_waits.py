"""Declared waits: the rows that follow are as much later, and nothing else about them changes."""

import pytest
import torch

from drivers.row_key import RowKey
from lab.measure import Share
from small_networks import optics

ROW_S = 0.75


def rows(count: int) -> torch.Tensor:
    return torch.rand(count, 50, generator=torch.Generator().manual_seed(count))


def test_rows_after_a_wait_are_later_by_it() -> None:
    with optics(noise=1.0) as apparatus:
        device = apparatus.open_device(3, 10)
        assert device.time_s == 10 * ROW_S
        device.wait(100.0)
        device.wait(20.0)
        device(rows(2), rows(2))
        assert list(device.last_keys) == [
            RowKey(3, 10, 10 * ROW_S + 120),
            RowKey(3, 11, 11 * ROW_S + 120),
        ]
        assert device.time_s == 12 * ROW_S + 120
        assert device.rows == 2


def test_micro_batches_follow_the_wait() -> None:
    with optics(noise=1.0) as apparatus:
        device = apparatus.open_device(3, 0)
        device.wait(60.0)
        part = device.part(Share(1, 2, 4))
        part(rows(2), rows(2))
        part(rows(2), rows(2))  # the next layer: rows 4 to 7 of the step
        assert list(part.last_keys) == [
            RowKey(3, 5, 5 * ROW_S + 60),
            RowKey(3, 6, 6 * ROW_S + 60),
        ]


def test_a_wait_of_nothing_changes_no_bit() -> None:
    with optics(noise=1.0) as apparatus:
        one, two = apparatus.open_device(3, 7), apparatus.open_device(3, 7)
        two.wait(0.0)
        assert torch.equal(one(rows(3), rows(3)), two(rows(3), rows(3)))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_waits_are_refused(seconds: float) -> None:
    with optics(noise=1.0) as apparatus, pytest.raises(ValueError, match="a wait of"):
        apparatus.open_device(0, 0).wait(seconds)

"""A change is told by how far it is beyond scatter, also where all outputs scatter together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.changes import change, scatter


def sigma(before: np.ndarray, after: np.ndarray) -> float | None:
    a, b = (scatter(np.array_split(rounds, 2)) for rounds in (before, after))
    expected = a.variance / len(before) + b.variance / len(after)
    return change(before.mean(axis=0), after.mean(axis=0), b, expected).sigma


def rounds(rng: np.random.Generator, number: int, together: float) -> np.ndarray:
    """Return repetitions of 200 outputs around 1, of which a part of the scatter is shared."""
    own, shared = rng.normal(size=(number, 200)), rng.normal(size=(number, 1))
    return 1 + 0.01 * (own + together * shared)


@pytest.mark.parametrize("together", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("number", [8, 15])
def test_an_unchanged_device_rarely_looks_changed(together: float, number: int) -> None:
    rng = np.random.default_rng(1)
    found = [
        sigma(rounds(rng, number, together), rounds(rng, number, together)) for _ in range(400)
    ]
    # more than 3 in at most 1 %, which is 4 of 400 on average; the outputs, taken for independent,
    # would give a third of all
    assert np.sum(np.array(found) > 3) <= 10
    assert 0.5 < np.std(found) < 1.4


@pytest.mark.parametrize("together", [0.0, 0.3])
def test_a_small_change_of_all_outputs_is_seen(together: float) -> None:
    rng = np.random.default_rng(2)
    pattern = 0.01 * rng.normal(size=200)  # what one round scatters
    a, b = rounds(rng, 15, together), rounds(rng, 15, together) + pattern
    assert sigma(a, b) > 5


def test_the_relative_change_is_what_was_added() -> None:
    rng = np.random.default_rng(3)
    a, b = rounds(rng, 100, 0.0), rounds(rng, 100, 0.0)
    spread = scatter([b])
    found = change(a.mean(axis=0), 1.02 * b.mean(axis=0), spread, 2 * spread.variance / 100)
    assert found.relative == pytest.approx(0.02, rel=0.05)


def test_without_scatter_there_is_no_sigma_of_a_change() -> None:
    still = np.ones((6, 4))
    spread = scatter(np.array_split(still, 2))
    assert change(still[0], still[0], spread, 0.0).sigma == 0.0
    moved = change(still[0], 2 * still[0], spread, 0.0)
    assert (moved.relative, moved.sigma) == (1.0, None)


def test_a_dark_mean_has_no_relative_change() -> None:
    rng = np.random.default_rng(0)
    spread = scatter([rng.normal(size=(6, 4))])
    assert change(np.zeros(4), np.ones(4), spread, 0.1).relative is None


def test_too_few_repetitions_are_refused() -> None:
    with pytest.raises(ValueError, match="4 repetitions in 2 groups"):
        scatter(np.array_split(np.ones((4, 3)), 2))


@given(st.integers(0, 2**32 - 1), st.floats(1e-9, 1e9), st.integers(1, 30))
def test_the_unit_does_not_matter(seed: int, unit: float, size: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 8, size)) + 3
    assert sigma(unit * a, unit * b) == pytest.approx(sigma(a, b), rel=1e-6, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_dimensions_are_between_one_and_the_number_of_values(seed: int, size: int) -> None:
    values = np.random.default_rng(seed).normal(size=(9, size))
    found = scatter([values])
    assert 1 - 1e-9 <= found.dimensions <= size + 1e-9  # rounding
    assert 0 < found.common <= 1

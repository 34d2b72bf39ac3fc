from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.datasets import Dataset, load, split
from lab.errors import ConfigError, UnknownName


def made_up(rows: int, groups: np.ndarray | None = None) -> Dataset:
    rng = np.random.default_rng(rows)
    labels = rng.integers(0, 3, rows)
    return Dataset("made-up", rng.random((rows, 4)), labels, ("a", "b", "c"), groups, "a test")


@pytest.mark.parametrize("kind", ["random", "talker"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_split_is_a_partition_of_the_papers_size(kind, seed):
    dataset = made_up(259, np.arange(259) // 6)
    s = split(dataset, kind, seed)
    assert len(s.test_idx) == 84
    assert np.array_equal(np.sort(np.concatenate([s.train_idx, s.test_idx])), np.arange(259))
    assert len(s.validation_idx) in ({35} if kind == "random" else range(32, 39))
    assert np.isin(s.validation_idx, s.train_idx).all()
    together = np.sort(np.concatenate([s.fit_idx, s.validation_idx]))
    assert np.array_equal(together, s.train_idx)


@given(
    talkers=st.lists(st.integers(0, 40), min_size=20, max_size=120), seed=st.integers(0, 2**32 - 1)
)
@settings(max_examples=50, deadline=None)
def test_no_talker_stands_on_two_sides(talkers, seed):
    groups = np.array(talkers)
    s = split(made_up(len(groups), groups), "talker", seed)
    test, validation, fit = (set(groups[i]) for i in (s.test_idx, s.validation_idx, s.fit_idx))
    assert not test & validation
    assert not test & fit
    assert not validation & fit


def test_talker_split_comes_as_near_as_whole_talkers_can():
    # 100 rows: the target is 32; of talkers with 7 rows (and one of 2), 4 x 7 + 2 = 30 is nearest.
    groups = np.repeat(np.arange(15), [7] * 14 + [2])
    for seed in range(20):
        assert len(split(made_up(100, groups), "talker", seed).test_idx) == 30


@pytest.mark.parametrize("kind", ["random", "talker"])
def test_split_follows_from_the_seed(kind):
    dataset = made_up(100, np.arange(100) // 4)
    first, again, other = (split(dataset, kind, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.test_idx, again.test_idx)
    assert np.array_equal(first.validation_idx, again.validation_idx)
    assert not np.array_equal(first.test_idx, other.test_idx)


def test_random_split_leaves_talkers_on_both_sides():
    groups = np.arange(259) // 6
    s = split(made_up(259, groups), "random", 0)
    assert len(set(groups[s.train_idx]) & set(groups[s.test_idx])) > 20


def test_talker_split_needs_talkers():
    with pytest.raises(ConfigError, match="'made-up' names no talkers"):
        split(made_up(50), "talker", 0)


def with_test_rows(groups: np.ndarray | None = None, held_out: int = 30) -> Dataset:
    test = np.sort(np.random.default_rng(1).permutation(100)[:held_out])
    return replace(made_up(100, groups), test_idx=test)


@given(seed=st.integers(0, 2**32 - 1))
def test_rows_that_the_publisher_holds_out_are_the_test_rows_whatever_the_seed(seed):
    dataset = with_test_rows()
    s = split(dataset, "random", seed)
    assert np.array_equal(s.test_idx, dataset.test_idx)
    assert np.array_equal(s.train_idx, np.setdiff1d(np.arange(100), dataset.test_idx))
    assert len(s.validation_idx) == 14
    assert np.isin(s.validation_idx, s.train_idx).all()


def test_talker_split_of_published_rows_needs_talkers_apart():
    talkers = np.arange(100) // 5
    mixed = with_test_rows(talkers)
    with pytest.raises(ConfigError, match=r"holds out rows of \d+ talkers of whom it has training"):
        split(mixed, "talker", 0)
    apart = replace(mixed, test_idx=np.arange(20, 40))
    s = split(apart, "talker", 0)
    assert np.array_equal(s.test_idx, np.arange(20, 40))
    assert not set(talkers[s.validation_idx]) & set(talkers[s.fit_idx])
    with pytest.raises(ConfigError, match="names no talkers"):
        split(with_test_rows(), "talker", 0)


def test_at_most_ten_thousand_rows_are_for_validation():
    many = Dataset("many", np.zeros((90_000, 1)), np.zeros(90_000, int), ("a",), None, "made up")
    assert len(split(many, "random", 0).validation_idx) == 10_000


@pytest.mark.parametrize("kind", ["random", "talker"])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 67), m=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_fewer_samples_are_part_of_more_and_leave_the_validation_rows(kind, seed, n, m):
    dataset = made_up(100, np.arange(100) // 4)
    whole = split(dataset, kind, seed)
    s = split(dataset, kind, seed, train_samples=n, test_samples=m)
    more = split(dataset, kind, seed, train_samples=n + 1)
    assert (len(s.train_idx), len(s.test_idx)) == (n, m)
    assert np.isin(s.train_idx, more.train_idx).all()
    assert np.isin(more.train_idx, whole.train_idx).all()
    assert np.isin(s.test_idx, whole.test_idx).all()
    assert np.array_equal(s.validation_idx, whole.validation_idx)
    # a choice is made on rows that were not trained on, and trains on as many as it can
    assert len(s.fit_idx) == min(n, len(whole.fit_idx))
    assert not np.isin(s.fit_idx, s.validation_idx).any()


def test_all_samples_are_the_whole_split():
    dataset = made_up(100)
    whole = split(dataset, "random", 3)
    s = split(dataset, "random", 3, train_samples=68, test_samples=32)
    assert np.array_equal(s.train_idx, whole.train_idx)
    assert np.array_equal(s.test_idx, whole.test_idx)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"train_samples": 69}, "69 training samples: 'made-up' has 1 to 68 training rows"),
        ({"train_samples": 0}, "0 training samples: 'made-up' has 1 to 68 training rows"),
        ({"test_samples": 33}, "33 test samples: 'made-up' has 1 to 32 test rows"),
    ],
)
def test_more_samples_than_there_are_is_refused(asked, reason):
    with pytest.raises(ConfigError, match=reason):
        split(made_up(100), "random", 0, **asked)


def test_digits():
    digits = load("digits")
    assert digits.features.shape == (1797, 49)
    assert digits.features.min() == 0.0
    assert digits.features.max() == 1.0
    assert digits.classes == tuple("0123456789")
    assert set(digits.labels) == set(range(10))
    assert digits.groups is None


def test_resampling_keeps_each_digits_mean_and_its_orientation():
    from sklearn.datasets import load_digits

    digits, original = load("digits"), load_digits()
    before = original.images.mean(axis=(1, 2)) / 16
    np.testing.assert_allclose(digits.features.mean(axis=1), before, rtol=1e-12)
    # The first new pixel covers one old pixel, a seventh of two neighbours, a 49th of the next.
    corner = original.images[:, :2, :2] / 16
    weights = np.outer([7, 1], [7, 1]) / 64
    np.testing.assert_allclose(digits.features[:, 0], (corner * weights).sum(axis=(1, 2)))
    upper = original.images[:, :4].sum(axis=(1, 2)) > original.images[:, 4:].sum(axis=(1, 2))
    new = digits.features.reshape(-1, 7, 7)
    new_upper = new[:, :3].sum(axis=(1, 2)) > new[:, 4:].sum(axis=(1, 2))
    assert np.mean(upper == new_upper) > 0.9


def test_unknown_task_names_the_known_ones():
    with pytest.raises(
        UnknownName, match="'consonants': there are vowels, vowels12, digits, mnist, mnist28"
    ):
        load("consonants")

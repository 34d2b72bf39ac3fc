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
    with pytest.raises(UnknownName, match="'consonants': there are vowels, digits"):
        load("consonants")

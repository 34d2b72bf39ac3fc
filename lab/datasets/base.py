"""A labelled data set, and its division into train, validation and test rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.config import Split as SplitKind
from lab.errors import ConfigError

Indices = NDArray[np.int64]

# The paper's vowels: 84 of 259 rows are held out; other tasks hold out the same share.
TEST_SHARE = 84 / 259
VALIDATION_SHARE = 1 / 5
VALIDATION_ROWS = 10_000  # more than enough to choose by


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of features with their classes.

    features: (rows, d) floats, 0 to 1, no unit.
    labels:   (rows,) int64, an index into `classes`.
    classes:  the names of the classes.
    groups:   (rows,) int64, who produced the row (talker number), or None where not known.
    source:   who published the data, for the report.
    test_idx: (test rows,) int64, sorted: the rows that the publisher holds out, or None where
              each split draws its own.
    """

    name: str
    features: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.int64] | None
    source: str
    test_idx: Indices | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers, sorted: `train_idx` and `test_idx` share none.

    `validation_idx` is for choices only (when to stop, which setting): a fifth of all training
    rows, at most 10,000. It is part of `train_idx` when training uses all rows, and apart from
    it as far as possible when fewer are asked for. The final training uses all of `train_idx`.
    """

    train_idx: Indices
    validation_idx: Indices
    test_idx: Indices

    @property
    def fit_idx(self) -> Indices:
        """Return the training rows without the validation rows, for training before a choice."""
        return np.setdiff1d(self.train_idx, self.validation_idx)

    def for_choices(self) -> "Split":
        """Return the split to choose settings by: validation rows are its test, test rows none."""
        return Split(self.fit_idx, np.array([], dtype=np.int64), self.validation_idx)


def split(
    dataset: Dataset,
    kind: SplitKind,
    seed: int,
    *,
    train_samples: int | None = None,
    test_samples: int | None = None,
) -> Split:
    """Divide the rows, reproducibly by `seed` (>= 0); not stratified, as in the paper.

    "random" draws single rows, so that the same talker can stand on both sides; "talker" draws
    whole talkers, as near to the same test size as whole talkers come. Where the publisher holds
    rows out (`dataset.test_idx`), exactly these are the test rows, whatever the seed. Validation
    rows are drawn from the training rows in the same way, at most 10,000.

    train_samples, test_samples: use only so many training and test rows, drawn by `seed`; fewer
    are always part of more. Training rows are drawn from those that are not for validation, and
    validation rows are only added when these do not suffice; the validation rows stay the same.

    Raises ConfigError for "talker" where the data set does not name its talkers or holds out
    rows of talkers whom it also trains on, and for more samples than there are.
    """
    rng = np.random.default_rng(seed)
    train_rng, test_rng = rng.spawn(2)
    rows = np.arange(len(dataset.labels))
    test = _test_rows(dataset, kind, rows, rng)
    train = np.setdiff1d(rows, test)
    target = min(round(VALIDATION_SHARE * len(train)), VALIDATION_ROWS)
    validation = _draw(dataset, kind, train, target, rng)
    rest = np.setdiff1d(train, validation)
    order = np.concatenate([train_rng.permutation(rest), train_rng.permutation(validation)])
    return Split(
        _first(order, train_samples, "training", dataset),
        validation,
        _first(test_rng.permutation(test), test_samples, "test", dataset),
    )


def _first(order: Indices, samples: int | None, part: str, dataset: Dataset) -> Indices:
    """Return the first `samples` rows of a random order, sorted; all of them for None."""
    if samples is not None and not 1 <= samples <= len(order):
        raise ConfigError(
            f"{samples} {part} samples: '{dataset.name}' has 1 to {len(order)} {part} rows"
        )
    return np.sort(order[:samples])


def _test_rows(
    dataset: Dataset, kind: SplitKind, rows: Indices, rng: np.random.Generator
) -> Indices:
    if dataset.test_idx is None:
        return _draw(dataset, kind, rows, round(TEST_SHARE * len(rows)), rng)
    if kind == "talker":
        _check_talkers_apart(dataset, np.setdiff1d(rows, dataset.test_idx), dataset.test_idx)
    return dataset.test_idx


def _check_talkers_apart(dataset: Dataset, train: Indices, test: Indices) -> None:
    groups = _groups(dataset)
    both = np.intersect1d(groups[train], groups[test])
    if len(both):
        raise ConfigError(
            f"split 'talker': '{dataset.name}' holds out rows of {len(both)} talkers of whom it "
            "has training rows too"
        )


def _groups(dataset: Dataset) -> Indices:
    if dataset.groups is None:
        raise ConfigError(f"split 'talker': the data set '{dataset.name}' names no talkers")
    return dataset.groups


def _draw(
    dataset: Dataset, kind: SplitKind, rows: Indices, target: int, rng: np.random.Generator
) -> Indices:
    if kind == "random":
        return np.sort(rng.permutation(rows)[:target])
    groups = _groups(dataset)[rows]
    return rows[np.isin(groups, _groups_near(groups, target, rng))]


def _groups_near(groups: Indices, target: int, rng: np.random.Generator) -> list[int]:
    """Return a random choice of whole groups whose rows together come nearest to `target`."""
    names, sizes = np.unique(groups, return_counts=True)
    # Every reachable number of rows, with the first choice of groups (in random order) that
    # reaches it: exact, where taking groups until it is full would miss the target.
    chosen: dict[int, tuple[int, ...]] = {0: ()}
    for i in rng.permutation(len(names)):
        for rows, group_names in list(chosen.items()):
            chosen.setdefault(rows + int(sizes[i]), (*group_names, int(names[i])))
    return list(chosen[min(chosen, key=lambda rows: abs(rows - target))])

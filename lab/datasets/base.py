"""A labelled data set, and its division into train, validation and test rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.config import Split as SplitKind
from lab.errors import ConfigError

Indices = NDArray[np.int64]

# The paper's vowels: 84 of 259 rows are held out; other tasks hold out the same share.
TEST_SHARE = 84 / 259
VALIDATION_SHARE = 1 / 5


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of features with their classes.

    features: (rows, d) float64, 0 to 1, no unit.
    labels:   (rows,) int64, an index into `classes`.
    classes:  the names of the classes.
    groups:   (rows,) int64, who produced the row (talker number), or None where not known.
    source:   who published the data, for the report.
    """

    name: str
    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.int64] | None
    source: str


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers, sorted: `train_idx` and `test_idx` share none and together are all rows.

    `validation_idx` is a fifth of the training rows, part of `train_idx`: for choices only
    (when to stop, which setting). The final training uses all of `train_idx`.
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


def split(dataset: Dataset, kind: SplitKind, seed: int) -> Split:
    """Divide the rows, reproducibly by `seed` (>= 0); not stratified, as in the paper.

    "random" draws single rows, so that the same talker can stand on both sides; "talker" draws
    whole talkers, as near to the same test size as whole talkers come. Validation rows are drawn
    from the training rows in the same way.

    Raises ConfigError for "talker" where the data set does not name its talkers.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(len(dataset.labels))
    test = _draw(dataset, kind, rows, TEST_SHARE, rng)
    train = np.setdiff1d(rows, test)
    validation = _draw(dataset, kind, train, VALIDATION_SHARE, rng)
    return Split(train, validation, test)


def _draw(
    dataset: Dataset, kind: SplitKind, rows: Indices, share: float, rng: np.random.Generator
) -> Indices:
    target = round(share * len(rows))
    if kind == "random":
        return np.sort(rng.permutation(rows)[:target])
    if dataset.groups is None:
        raise ConfigError(f"split 'talker': the data set '{dataset.name}' names no talkers")
    groups = dataset.groups[rows]
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

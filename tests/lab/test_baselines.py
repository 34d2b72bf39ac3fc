from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import lab.baselines
from lab.baselines import logistic_regression
from lab.datasets import Dataset, Split, load, split


def separable(rows: int = 90) -> Dataset:
    labels = np.arange(rows) % 3
    features = np.eye(3)[labels] + 0.05 * np.random.default_rng(0).standard_normal((rows, 3))
    return Dataset("made-up", features, labels, ("a", "b", "c"), None, "a test")


def test_learns_what_can_be_learnt():
    dataset = separable()
    assert logistic_regression(dataset, split(dataset, "random", 0)) == 1.0


def test_trains_on_the_training_rows_only():
    dataset = separable()
    rows = np.arange(len(dataset.labels))
    train, test = rows[dataset.labels < 2], rows[dataset.labels == 2]
    # The test rows are all of a class that is easy to tell but not in the training rows.
    assert logistic_regression(dataset, Split(train, train[:10], test)) == 0.0


def test_the_validation_rows_belong_to_the_training():
    dataset = separable(9)
    train = np.arange(6)
    # Class c is in the training rows only through the validation rows 2 and 5.
    s = Split(train, np.array([2, 5]), np.array([8]))
    assert logistic_regression(dataset, s) == 1.0


def test_the_same_rows_are_fitted_once(monkeypatch):
    fitted = []
    fit = LogisticRegression.fit

    def counted(classifier, *data):
        fitted.append(classifier)
        return fit(classifier, *data)

    monkeypatch.setattr(LogisticRegression, "fit", counted)
    dataset = separable(60)
    first, other = (split(dataset, "random", seed) for seed in (0, 1))
    same = [logistic_regression(d, first) for d in (dataset, separable(60), dataset)]
    assert (len(set(same)), len(fitted)) == (1, 1)
    logistic_regression(dataset, other)
    logistic_regression(dataset, split(dataset, "random", 0, test_samples=3))
    logistic_regression(replace(dataset, labels=dataset.labels[::-1].copy()), first)
    assert len(fitted) == 4


def test_training_rows_of_one_class_predict_that_class():
    dataset = separable(9)
    s = Split(np.array([0, 3]), np.array([3]), np.array([6, 7, 8]))
    assert logistic_regression(dataset, s) == 1 / 3


def test_a_fit_that_does_not_converge_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(lab.baselines, "_MOST_ITERATIONS", 1)
    dataset = separable(120)
    assert logistic_regression(dataset, split(dataset, "random", 0)) > 0.9


@pytest.mark.parametrize("kind", ["random", "talker"])
def test_vowels_are_easy_for_a_digital_classifier(data_folder, kind):
    dataset = load("vowels", folder=data_folder)
    accuracies = [logistic_regression(dataset, split(dataset, kind, seed)) for seed in range(3)]
    # 0.95 to 1 over ten seeds of either split; published re-splits: 0.96 to 0.99.
    assert np.mean(accuracies) > 0.94

"""The plain digital classifier that stands beside every accuracy of a physical network."""

from lab.datasets.base import Dataset, Split


def logistic_regression(dataset: Dataset, split: Split) -> float:
    """Return the test accuracy, 0 to 1, of logistic regression trained on `split.train_idx`.

    Features are standardised by the training rows. Nothing is tuned: the regularisation is
    scikit-learn's default, C = 1.
    """
    # Imported here because scikit-learn takes a second to import.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    train, test = split.train_idx, split.test_idx
    classifier.fit(dataset.features[train], dataset.labels[train])
    return float(classifier.score(dataset.features[test], dataset.labels[test]))

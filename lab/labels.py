"""Labels as features, for methods that show a network its samples with labels.

The last `classes` features are the label's place: one-hot, or 1/classes each where it is not told.
"""

import torch
from torch import Tensor, nn

from lab.config import TrainConfig
from lab.datasets import Dataset


def network_features(config: TrainConfig, dataset: Dataset) -> Tensor:
    """Return the samples as the network gets them, (samples, features), 0..1."""
    features = torch.from_numpy(dataset.features).float()
    if config.method != "phyll":
        return features
    return with_neutral_label(features, len(dataset.classes))


def with_neutral_label(features: Tensor, classes: int) -> Tensor:
    """Return features (samples, n) and a place that tells no label, (samples, n + classes)."""
    return nn.functional.pad(features, (0, classes), value=1 / classes)


def with_labels(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return features (samples, n + classes) with labels (samples,) in the label's place."""
    shown = nn.functional.one_hot(labels, classes).to(features)
    return torch.cat([features[:, :-classes], shown], dim=1)

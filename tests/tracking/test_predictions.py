"""What dashboards show of the test images, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score

from cifar.tracking.predictions import Predictions

NAMES = ["cat", "dog", "frog"]


def predictions(labels: list[int], predicted: list[int], confidences: list[float] | None = None) -> Predictions:
    images = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    sure = torch.tensor(confidences or [0.5] * len(labels))
    return Predictions(images, torch.tensor(labels), torch.tensor(predicted), sure, sure, sure, NAMES)


@pytest.mark.parametrize("seed", range(5))
def test_confusion_matrix_and_class_accuracies_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 3, (2, 200))
    test = predictions(labels.tolist(), predicted.tolist())
    assert test.confusion_matrix().tolist() == confusion_matrix(labels, predicted).tolist()
    expected = recall_score(labels, predicted, average=None)
    assert [*test.class_accuracies().values()] == pytest.approx(expected.tolist())
    assert [*test.class_accuracies()] == NAMES


def test_a_class_without_images_has_no_accuracy_and_one_without_a_name_has_its_number() -> None:
    test = predictions([0, 0, 2], [0, 4, 2])
    assert test.names() == [*NAMES, "3", "4"]
    assert test.class_accuracies() == {"cat": 0.5, "frog": 1.0}
    assert test.confusion_matrix()[0].tolist() == [1, 0, 0, 0, 1]


def test_the_most_confidently_wrong_come_in_order_without_those_that_are_right() -> None:
    test = predictions([0, 1, 2, 0, 1], [1, 1, 0, 2, 0], [0.4, 0.99, float("nan"), 0.9, 0.7])
    assert test.most_confidently_wrong(10) == [3, 4, 0, 2]
    assert test.most_confidently_wrong(2) == [3, 4]
    assert predictions([0, 1], [0, 1]).most_confidently_wrong(3) == []

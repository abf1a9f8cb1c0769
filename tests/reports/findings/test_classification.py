"""Wilson's intervals, calibration and confusion against scipy, scikit-learn and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, recall_score

from cifar.reports.findings.classification import (
    Share,
    bins,
    calibration_error,
    confusion,
    examples,
    facts,
    most_confidently_wrong,
    overall,
    per_class,
)
from cifar.tracking.answers import Stored

NAMES = ["cat", "dog", "frog"]


def answers(labels: list[int], predicted: list[int], confidence: list[float] | None = None) -> Stored:
    """Return answers whose losses are the images' places and whose Brier scores are half of them."""
    places = np.arange(len(labels), dtype=np.float32)
    sure = np.array(confidence or [0.5] * len(labels), dtype=np.float32)
    return Stored(np.array(labels), np.array(predicted), sure, places, (places / 2).astype(np.float32), NAMES, "a set")


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 7), (862, 1000), (9391, 10000)])
def test_wilson_is_scipys(count: int, total: int) -> None:
    expected = binomtest(count, total).proportion_ci(0.95, "wilson")
    low, high = Share(count, total).interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= count / total <= high <= 1


def test_of_nothing_nothing_is_known() -> None:
    share = Share(0, 0)
    assert np.isnan([share.fraction, *share.interval]).all()


@pytest.mark.parametrize("seed", range(3))
def test_matrix_and_classes_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, 3, (2, 50)).tolist()
    found = answers(labels, predicted)
    np.testing.assert_array_equal(confusion(found), confusion_matrix(labels, predicted, labels=range(3)))
    fractions = [part.fraction for part in per_class(found)]
    np.testing.assert_allclose(fractions, recall_score(labels, predicted, average=None))
    assert overall(found).fraction == pytest.approx(np.mean(np.array(labels) == predicted))


def test_the_calibration_error_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 500)
    labels = rng.integers(0, 3, 500)
    predicted = np.where(rng.uniform(size=500) < confidence**2, labels, (labels + 1) % 3)
    found = bins(answers(labels.tolist(), predicted.tolist(), confidence.tolist()), 10)
    edges, right, error = np.linspace(0, 1, 11), labels == predicted, 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(found) == pytest.approx(error, rel=1e-6)
    assert sum(entry.count for entry in found) == 500


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [False, False], 1.0),
        ([0.75, 0.75, 0.75, 0.75], [True, True, True, False], 0.0),
        ([1.0, 0.5], [False, True], 0.75),
    ],
)
def test_the_calibration_error_of_what_is_known(confidence: list[float], right: list[bool], error: float) -> None:
    predicted = [0 if is_right else 1 for is_right in right]
    assert calibration_error(bins(answers([0] * len(right), predicted, confidence))) == pytest.approx(error)


def test_a_confidence_that_is_none_is_in_no_bin() -> None:
    assert [entry.count for entry in bins(answers([0, 0], [0, 1], [float("nan"), 1.0]))] == [1]
    assert np.isnan(calibration_error([]))


def test_the_worst_come_first_and_examples_in_their_order() -> None:
    found = answers([0, 1, 0, 2, 0], [1, 1, 2, 0, 0], [0.6, 0.9, 0.8, float("nan"), 0.3])
    assert most_confidently_wrong(found) == [2, 0, 3]
    assert [*examples(found, 2)] == [[0, 2], [1], [3]]


def test_facts_are_means_over_the_images() -> None:
    found = facts(answers([0, 1, 2, 2], [0, 1, 2, 0]))
    assert (found["nll"], found["brier"], found["accuracy"], found["num_images"]) == (1.5, 0.75, 0.75, 4)
    assert [entry["name"] for entry in found["classes"]] == NAMES
    assert found["accuracy_interval"] == [*Share(3, 4).interval]

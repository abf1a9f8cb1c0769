"""How good a run's answers for its test images are: per class, with intervals, and how far its confidence is true."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar.reports.runs.statistics import CONFIDENCE
from cifar.tracking.answers import Stored

NUM_BINS = 15  # of equal width, as Guo et al. have them


@dataclass(frozen=True)
class Share:
    """So many of so many, as a fraction with the ends of its 95 % interval; NaN of none."""

    count: int
    total: int

    @property
    def fraction(self) -> float:
        """The fraction itself."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval (JASA 22, 1927), which stays within 0 and 1."""
        if not self.total:
            return math.nan, math.nan
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        shrunk = 1 + z**2 / self.total
        middle = (self.fraction + z**2 / (2 * self.total)) / shrunk
        variance = self.fraction * (1 - self.fraction) / self.total + z**2 / (4 * self.total**2)
        half = z * math.sqrt(variance) / shrunk
        return min(max(0.0, middle - half), self.fraction), max(min(1.0, middle + half), self.fraction)  # rounding


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies above `low` and up to `high`: how many, their mean confidence and accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def correct(answers: Stored) -> NDArray[np.bool_]:
    """Return which images were predicted correctly."""
    found: NDArray[np.bool_] = answers.labels == answers.predicted
    return found


def overall(answers: Stored) -> Share:
    """Return the accuracy."""
    return Share(int(correct(answers).sum()), len(answers.labels))


def per_class(answers: Stored) -> list[Share]:
    """Return the accuracy of every class's images, its recall; also of classes without images."""
    matrix = confusion(answers)
    return [Share(int(row[place]), int(row.sum())) for place, row in enumerate(matrix)]


def confusion(answers: Stored) -> NDArray[np.int64]:
    """Return how many images of a class (row) were predicted to be of a class (column), (K, K)."""
    num_classes = len(answers.names())
    cells = answers.labels * num_classes + answers.predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def bins(answers: Stored, number: int = NUM_BINS) -> list[Bin]:
    """Return the bins of equal width that have images; those without a confidence, NaN, are left out."""
    known = np.isfinite(answers.confidence)
    confidence, right = answers.confidence[known].astype(np.float64), correct(answers)[known]
    places = np.clip(np.ceil(confidence * number) - 1, 0, number - 1).astype(int)
    return [
        Bin(
            place / number,
            (place + 1) / number,
            int((places == place).sum()),
            float(confidence[places == place].mean()),
            float(right[places == place].mean()),
        )
        for place in range(number)
        if (places == place).any()
    ]


def calibration_error(found: list[Bin]) -> float:
    """Return the expected calibration error over the bins (Guo et al., arXiv:1706.04599, equation 3); NaN of none."""
    total = sum(entry.count for entry in found)
    gaps = sum(entry.count * abs(entry.accuracy - entry.confidence) for entry in found)
    return gaps / total if total else math.nan


def most_confidently_wrong(answers: Stored) -> list[int]:
    """Return the images predicted wrongly, the most confident first; NaN comes last."""
    wrong = np.flatnonzero(~correct(answers))
    order = np.argsort(-np.nan_to_num(answers.confidence[wrong], nan=-1.0), kind="stable")
    indices: list[int] = wrong[order].tolist()
    return indices


def examples(answers: Stored, number: int) -> Iterator[list[int]]:
    """Yield for every class up to `number` of its images: the first in the test set's order, which nobody chose."""
    for label in range(len(answers.names())):
        indices: list[int] = np.flatnonzero(answers.labels == label)[:number].tolist()
        yield indices


def facts(answers: Stored) -> dict[str, Any]:
    """Return all that evaluation.json says of the answers."""
    share, found = overall(answers), bins(answers)
    classes = zip(answers.names(), per_class(answers), strict=True)
    return {
        "num_images": share.total,
        "accuracy": share.fraction,
        "accuracy_interval": [*share.interval],
        "nll": float(answers.loss.mean(dtype=np.float64)),
        "brier": float(answers.brier.mean(dtype=np.float64)),
        "ece": calibration_error(found),
        "ece_bins": NUM_BINS,
        "mean_confidence": float(answers.confidence.mean(dtype=np.float64)),
        "bins": [vars(entry) for entry in found],
        "classes": [
            {"name": name, "count": part.total, "accuracy": part.fraction, "interval": [*part.interval]}
            for name, part in classes
        ],
        "confusion": confusion(answers).tolist(),
        "test_set": answers.test_set,
    }

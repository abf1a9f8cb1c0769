"""Two runs on the same test images: where they disagree, and whether chance would do that (McNemar's test)."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cifar.base.errors import UserError
from cifar.reports.findings.classification import correct
from cifar.reports.runs.statistics import CONFIDENCE
from cifar.tracking.answers import Stored


@dataclass(frozen=True)
class Disagreement:
    """Of `total` images the `first` ones that only the first run has right, and the `second` ones, only the second."""

    total: int
    first: list[int]
    second: list[int]
    both_wrong: int

    @property
    def difference(self) -> float:
        """How much higher the first run's accuracy is."""
        return (len(self.first) - len(self.second)) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference (Bonett & Price, J. Educ. Behav. Stat. 37, 2012, equation 5)."""
        z, size = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), self.total + 2
        first, second = ((count + 1) / size for count in self.counts)
        half = z * math.sqrt((first + second - (first - second) ** 2) / size)
        return max(-1.0, first - second - half), min(1.0, first - second + half)

    @property
    def p_value(self) -> float:
        """The exact two-sided p value of McNemar's test (Psychometrika 12, 1947): the binomial one over both kinds.

        It never claims more than its level; 1 where the runs have the same images right.
        """
        from scipy.special import bdtr

        return min(1.0, 2 * float(bdtr(min(self.counts), sum(self.counts), 0.5)))

    @property
    def mid_p_value(self) -> float:
        """The mid-p value, which counts half of what was seen (Fagerland et al., BMC Med. Res. Methodol. 13:91, 2013).

        With few disagreements the exact one is cautious: chance reaches 5 % in fewer than 5 % of cases.
        """
        from scipy.special import bdtr

        low, total = min(self.counts), sum(self.counts)
        up_to, below = float(bdtr(low, total, 0.5)), float(bdtr(low - 1, total, 0.5)) if low else 0.0
        return 1.0 if 2 * low == total else up_to + below

    @property
    def counts(self) -> tuple[int, int]:
        """How many images only the first, and only the second, has right."""
        return len(self.first), len(self.second)

    @property
    def is_clear(self) -> bool:
        """Whether chance alone would seldom (in less than 5 % of cases) give such a difference."""
        return self.p_value < 1 - CONFIDENCE


def disagreement(first: Stored, second: Stored, names: tuple[str, str]) -> Disagreement:
    """Return where two runs disagree, the images on which the wrong one was most confident first.

    Raises `UserError` if they were not tested on the same images.
    """
    if first.test_set != second.test_set:
        sizes = len(first.labels), len(second.labels)
        counts = f": {sizes[0]:,} and {sizes[1]:,}" if sizes[0] != sizes[1] else f", though there are {sizes[0]:,} each"
        raise UserError(
            f"{names[0]} and {names[1]} were not tested on the same images{counts}. A comparison image by image needs "
            "the same test set: the same data, data.test_limit and data.source."
        )
    right = correct(first), correct(second)

    def ordered(which: np.ndarray[tuple[int], np.dtype[np.bool_]], wrong: Stored) -> list[int]:
        places = np.flatnonzero(which)
        order = np.argsort(-np.nan_to_num(wrong.confidence[places], nan=-1.0), kind="stable")
        found: list[int] = places[order].tolist()
        return found

    return Disagreement(
        len(first.labels),
        ordered(right[0] & ~right[1], second),
        ordered(right[1] & ~right[0], first),
        int((~right[0] & ~right[1]).sum()),
    )

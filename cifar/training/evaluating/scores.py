"""What a model's logits say of single images: class, confidence, loss, Brier score."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Scores(NamedTuple):
    """Of N images the classes predicted, int64 (N,), and float32 (N,): their softmax probabilities and two scores.

    `losses` are cross-entropies, without label smoothing; `briers` are sums over the classes of the squared
    differences of probability and truth, from 0 to 2 (Brier, Monthly Weather Review 78, 1950).
    """

    predictions: Tensor
    confidences: Tensor
    losses: Tensor
    briers: Tensor


def scores(logits: Tensor, labels: Tensor) -> Scores:
    """Return the scores for logits (N, classes), one device's, and labels (N,)."""
    probabilities = logits.float().softmax(dim=1)
    of_label = probabilities.gather(1, labels[:, None])[:, 0]
    return Scores(
        logits.argmax(dim=1),
        probabilities.amax(dim=1),
        F.cross_entropy(logits.float(), labels, reduction="none"),
        probabilities.square().sum(dim=1) - 2 * of_label + 1,
    )


def joined(parts: Sequence[Scores]) -> Scores:
    """Return the scores of several batches as one."""
    return Scores(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

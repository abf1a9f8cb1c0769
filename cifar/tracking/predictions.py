"""A model's answers for a set of images, and what every dashboard shows of them; each `cifar run` ends with it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """What a model said of N images, all on the CPU.

    `images` is uint8 (N, C, H, W); `labels` and `predicted` are classes, int64 (N,); `confidences` are the softmax
    probabilities of the predicted classes, (N,), `losses` and `briers` the scores of
    cifar/training/evaluating/scores.py, (N,). `class_names` may be fewer than the classes that the model knows.
    """

    images: Tensor
    labels: Tensor
    predicted: Tensor
    confidences: Tensor
    losses: Tensor
    briers: Tensor
    class_names: list[str]

    def names(self) -> list[str]:
        """Return the K names of all classes that occur; one without a name has its number."""
        return named(self.class_names, int(torch.cat([self.labels, self.predicted]).max()) + 1)

    def confusion_matrix(self) -> Tensor:
        """Return how many images of a class (row) were predicted to be of a class (column), int64 (K, K)."""
        num_classes = len(self.names())
        cells = self.labels * num_classes + self.predicted
        return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)

    def class_accuracies(self) -> dict[str, float]:
        """Return the fraction of each class's images that were predicted correctly, for the classes with images."""
        matrix = self.confusion_matrix()
        totals, correct = matrix.sum(dim=1).tolist(), matrix.diagonal().tolist()
        return {name: right / total for name, right, total in zip(self.names(), correct, totals, strict=True) if total}

    def most_confidently_wrong(self, number: int) -> list[int]:
        """Return the indices of up to `number` images predicted wrongly, the most confident first; NaN comes last."""
        wrong = torch.nonzero(self.predicted != self.labels).flatten()
        order = self.confidences[wrong].nan_to_num(nan=-1.0).argsort(descending=True, stable=True)
        indices: list[int] = wrong[order[:number]].tolist()
        return indices


def named(class_names: list[str], num_classes: int) -> list[str]:
    """Return the names of at least `num_classes` classes; one without a name has its number."""
    return class_names + [str(number) for number in range(len(class_names), num_classes)]

"""predictions.npz, what a run said of the test images: exact, a few bytes an image, and read as data only."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cifar.base.errors import UserError
from cifar.base.run_folder import write_atomically
from cifar.tracking.predictions import Predictions, named

PREDICTIONS = "predictions.npz"
MOST_CLASSES = 1_000_000
COLUMNS = ("labels", "predicted", "confidence", "loss", "brier")


@dataclass(frozen=True)
class Stored:
    """What predictions.npz holds of N images.

    `labels` and `predicted` are classes, int64 (N,), `confidence` the softmax probabilities of the predicted ones,
    float32 (N,), `loss` and `brier` the scores of cifar/training/evaluating/scores.py, float32 (N,). `test_set` is a
    digest of the images and labels: equal for runs that were tested on the same.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    loss: NDArray[np.float32]
    brier: NDArray[np.float32]
    class_names: list[str]
    test_set: str

    def names(self) -> list[str]:
        """Return the names of all classes that occur; one without a name has its number."""
        return named(self.class_names, 1 + int(max(self.labels.max(initial=-1), self.predicted.max(initial=-1))))

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of a table with a row per image."""
        return {name: getattr(self, name) for name in COLUMNS}


def digest(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 of images (N, C, H, W) and their labels (N,)."""
    found = hashlib.sha256(str(tuple(images.shape)).encode())
    for part in (images, labels):
        found.update(np.ascontiguousarray(part.numpy()).data)
    return found.hexdigest()


def answers_of(test: Predictions) -> Stored:
    """Return what is kept of a run's predictions."""
    columns = zip(COLUMNS, (test.labels, test.predicted, test.confidences, test.losses, test.briers), strict=True)
    arrays = {name: column.numpy() for name, column in columns}
    return Stored(class_names=test.class_names, test_set=digest(test.images, test.labels), **arrays)


def write_predictions(folder: Path, answers: Stored) -> None:
    """Write predictions.npz into a run's folder; the same bytes for the same answers."""
    arrays = {**answers.columns(), "class_names": np.array(answers.class_names), "test_set": np.array(answers.test_set)}
    write_atomically(folder / PREDICTIONS, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def read_predictions(path: Path) -> Stored:
    """Return what the file holds; raise `UserError` if it is none. Nothing in it is called, whoever wrote it."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in (*COLUMNS, "class_names", "test_set")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    kinds = [arrays[name].dtype.str[1:] for name in COLUMNS]
    shapes = {arrays[name].shape for name in COLUMNS}
    texts = {arrays[name].dtype.kind for name in ("class_names", "test_set")}
    is_good = kinds == ["i8", "i8", "f4", "f4", "f4"] and texts == {"U"} and len(shapes) == 1
    if not is_good or arrays["labels"].ndim != 1 or not all(is_classes(arrays[name]) for name in COLUMNS[:2]):
        raise UserError(f"{path} holds something else than a run's predictions.")
    names = [str(name) for name in arrays["class_names"].ravel()]
    columns = {name: arrays[name] for name in COLUMNS}
    return Stored(class_names=names, test_set=str(arrays["test_set"]), **columns)


def is_classes(numbers: NDArray[np.int64]) -> bool:
    """Return whether the numbers can be those of classes."""
    return bool(numbers.size) and 0 <= int(numbers.min()) <= int(numbers.max()) < MOST_CLASSES

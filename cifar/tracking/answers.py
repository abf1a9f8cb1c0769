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
from cifar.tracking.predictions import Predictions

PREDICTIONS = "predictions.npz"
COLUMNS = ("labels", "predicted", "confidence")


@dataclass(frozen=True)
class Stored:
    """What predictions.npz holds of N images.

    `labels` and `predicted` are classes, int64 (N,), `confidence` the softmax probabilities of the predicted ones,
    float32 (N,). `test_set` is a digest of the images and labels: equal for runs that were tested on the same.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    class_names: list[str]
    test_set: str

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of a table with a row per image."""
        return {name: getattr(self, name) for name in COLUMNS}


def digest(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 of images (N, C, H, W) and their labels (N,)."""
    found = hashlib.sha256(str(tuple(images.shape)).encode())
    for part in (images, labels):
        found.update(np.ascontiguousarray(part.numpy()).data)
    return found.hexdigest()


def write_predictions(folder: Path, test: Predictions) -> None:
    """Write predictions.npz into a run's folder; the same bytes for the same predictions."""
    arrays: dict[str, NDArray[Any]] = {
        "labels": test.labels.numpy(),
        "predicted": test.predicted.numpy(),
        "confidence": test.confidences.numpy(),
        "class_names": np.array(test.class_names),
        "test_set": np.array(digest(test.images, test.labels)),
    }
    write_atomically(folder / PREDICTIONS, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def read_predictions(path: Path) -> Stored:
    """Return what the file holds; raise `UserError` if it is none. Nothing in it is called, whoever wrote it."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in (*COLUMNS, "class_names", "test_set")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    kinds = [arrays[name].dtype.kind for name in arrays]
    sizes = {arrays[name].shape for name in COLUMNS}
    if kinds != ["i", "i", "f", "U", "U"] or len(sizes) != 1 or arrays["labels"].ndim != 1:
        raise UserError(f"{path} holds something else than a run's predictions.")
    names = [str(name) for name in arrays["class_names"].ravel()]
    labels, predicted, confidence = (arrays[name] for name in COLUMNS)
    return Stored(labels, predicted, confidence, names, str(arrays["test_set"]))

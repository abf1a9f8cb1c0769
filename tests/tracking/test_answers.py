"""predictions.npz comes back as it was written, is the same file for the same answers, and can hold no code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar.base.errors import UserError
from cifar.tracking.answers import answers_of, digest, read_predictions, write_predictions
from cifar.tracking.predictions import Predictions

ANSWERS = Predictions(
    images=torch.arange(3 * 12, dtype=torch.uint8).view(3, 3, 2, 2),
    labels=torch.tensor([0, 1, 1]),
    predicted=torch.tensor([0, 2, 1]),
    confidences=torch.tensor([0.5, 1 / 3, 1.0]),
    losses=torch.tensor([0.1, 2.0, 0.0]),
    briers=torch.tensor([0.2, 1.5, 0.0]),
    class_names=["cat", "dog", "frög"],
)


def test_it_comes_back_exactly(tmp_path: Path) -> None:
    write_predictions(tmp_path, answers_of(ANSWERS))
    first = (tmp_path / "predictions.npz").read_bytes()
    found = read_predictions(tmp_path / "predictions.npz")
    for name, column in found.columns().items():
        expected = getattr(
            ANSWERS, {"confidence": "confidences", "loss": "losses", "brier": "briers"}.get(name, name)
        ).numpy()
        np.testing.assert_array_equal(column, expected)
        assert column.dtype == expected.dtype
    assert found.class_names == ANSWERS.class_names
    write_predictions(tmp_path, answers_of(ANSWERS))
    assert (tmp_path / "predictions.npz").read_bytes() == first


def test_the_digest_tells_sets_of_images_apart() -> None:
    whole = digest(ANSWERS.images, ANSWERS.labels)
    other = ANSWERS.images.clone()
    other[2, 0, 0, 0] += 1
    assert whole == digest(ANSWERS.images.contiguous(memory_format=torch.channels_last), ANSWERS.labels)
    assert whole not in (digest(other, ANSWERS.labels), digest(ANSWERS.images, ANSWERS.labels.flip(0)),
                         digest(ANSWERS.images.view(3, 3, 1, 4), ANSWERS.labels))  # fmt: skip


@pytest.mark.parametrize("content", ["", "text", "pickled", "lacking", "uneven"])
def test_what_is_none_is_one_message(tmp_path: Path, content: str) -> None:
    path = tmp_path / "predictions.npz"
    path.write_text(content)
    if content == "pickled":
        np.savez(path, labels=np.array([{}], dtype=object))
    elif content == "lacking":
        np.savez(path, labels=np.zeros(3, dtype=int))
    elif content == "uneven":
        write_predictions(tmp_path, answers_of(replace(ANSWERS, predicted=ANSWERS.predicted[:2])))
    with pytest.raises(UserError, match=r"predictions\.npz"):
        read_predictions(path)

"""Data sets that need no download: digits and noise."""

import numpy as np
import pytest
import torch

from cifar.base.errors import UserError
from cifar.data.sources.digits import Digits
from cifar.data.sources.random_images import RandomImages


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    images = Digits(test_size=360).load()
    assert images.train_images.shape == (1437, 3, 32, 32)
    assert images.test_images.shape == (360, 3, 32, 32)
    assert images.train_images.dtype == torch.uint8
    assert torch.bincount(images.test_labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    together = torch.cat([images.train_images, images.test_images])
    assert torch.equal(together[:, 0], together[:, 2])
    small = together[:, 0, ::4, ::4]
    assert torch.equal(small.repeat_interleave(4, 1).repeat_interleave(4, 2), together[:, 0])
    pixels, labels = load_digits(return_X_y=True)
    expected = sorted([*row, label] for row, label in zip(np.rint(pixels * 255 / 16).tolist(), labels, strict=True))
    labels = torch.cat([images.train_labels, images.test_labels]).tolist()
    assert sorted([*row, label] for row, label in zip(small.flatten(1).tolist(), labels, strict=True)) == expected


def test_the_digits_split_is_fixed() -> None:
    first, second = Digits(test_size=360).load(), Digits(test_size=360).load()
    assert torch.equal(first.test_images, second.test_images)
    assert first.test_labels[:10].tolist() == [1, 2, 6, 0, 3, 6, 1, 2, 5, 9]


def test_random_images_depend_on_seed_and_sizes_alone() -> None:
    first = RandomImages(num_train=30, num_test=20, num_classes=3, seed=1).load()
    torch.manual_seed(7)
    second = RandomImages(num_train=30, num_test=20, num_classes=3, seed=1).load()
    other = RandomImages(num_train=30, num_test=20, num_classes=3, seed=2).load()
    assert torch.equal(first.train_images, second.train_images)
    assert not torch.equal(first.train_images, other.train_images)
    assert (len(first.train_labels), len(first.test_labels), len(first.class_names)) == (30, 20, 3)
    assert first.train_labels[:5].tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("key", ["num_train", "num_test", "num_classes"])
def test_impossible_sizes_are_named(key: str) -> None:
    with pytest.raises(UserError, match=f"data.source.{key}=0 "):
        RandomImages(**{"num_train": 1, "num_test": 1, "num_classes": 1, "seed": 0, key: 0})
    with pytest.raises(UserError, match="test_size=0 "):
        Digits(test_size=0)

"""What an own data set may give, and what is said of the rest."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cifar.base.errors import UserError
from cifar.data.images import Images, channel_statistics, checked, of_classes

PIXELS = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
GOOD = Images(PIXELS, LABELS, PIXELS[:3], LABELS[:3], ["a", "b", "c"])


def test_good_images_stay_the_same() -> None:
    result = checked(GOOD, "mine.Source")
    assert all(getattr(result, name) is value for name, value in vars(GOOD).items() if name.endswith("images"))
    assert torch.equal(result.train_labels, LABELS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_other_whole_numbers_are_taken(dtype: torch.dtype) -> None:
    result = checked(replace(GOOD, train_labels=LABELS.to(dtype), test_labels=LABELS[:3].to(dtype)), "mine.Source")
    assert result.train_labels.dtype == result.test_labels.dtype == torch.int64
    assert torch.equal(result.train_labels, LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": LABELS + 1}, "train_labels go from 1 to 3, which is not possible: it takes 0 to 2, because"),
        ({"test_labels": LABELS[:3] - 1}, "test_labels go from -1 to 1, which is not possible: it takes 0 to 2"),
        ({"train_labels": LABELS.float()}, "train_labels has dtype torch.float32, which is not possible"),
        ({"train_labels": LABELS > 0}, "train_labels has dtype torch.bool"),
        ({"train_labels": LABELS[:, None]}, r"train_labels has shape \(6, 1\)"),
        ({"train_labels": LABELS[:5]}, "train_images are 6, train_labels 5"),
        ({"train_labels": LABELS.tolist()}, "train_labels is a list"),
        (
            {"test_images": PIXELS[:3].permute(0, 2, 3, 1)},
            r"test_images has shape \(3, 8, 8, 3\).*permute\(0, 3, 1, 2\)",
        ),
        ({"train_images": PIXELS[:, :1]}, r"train_images has shape \(6, 1, 8, 8\).*takes \(N, 3, height, width\)"),
        ({"train_images": PIXELS[0]}, r"train_images has shape \(3, 8, 8\)"),
        ({"train_images": PIXELS.float()}, "train_images has dtype torch.float32.*torch.uint8, pixels from 0 to 255"),
        ({"train_images": PIXELS.numpy()}, "train_images is a ndarray.*torch.Tensor"),
        ({"test_images": PIXELS[:0], "test_labels": LABELS[:0]}, r"test_images has shape \(0, 3, 8, 8\)"),
        ({"test_images": PIXELS[:3, :, :6]}, r"train_images are \(3, 8, 8\) each, test_images \(3, 6, 8\)"),
        ({"class_names": ["a", "b", "a"]}, "class_names has 'a' twice"),
        ({"class_names": []}, r"class_names=\[\]"),
        ({"class_names": [0, 1, 2]}, r"class_names=\[0, 1, 2\]"),
    ],
)
def test_what_no_run_could_use_is_named_with_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.source\._target_=mine\.Source: {message}"):
        checked(replace(GOOD, **changes), "mine.Source")


def test_something_else_is_no_images() -> None:
    with pytest.raises(UserError, match=r"load\(\) returned a tuple, which is not possible: it takes cifar"):
        checked((PIXELS, LABELS), "mine.Source")


def test_some_classes_are_numbered_in_the_order_of_their_names() -> None:
    images = replace(GOOD, train_images=torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 2, 2))
    found = of_classes(images, ["c", "a"])
    assert found.train_images[:, 0, 0, 0].tolist() == [0, 2, 3, 5]
    assert found.train_labels.tolist() == [1, 0, 1, 0]
    assert found.test_labels.tolist() == [1, 0]
    assert found.class_names == ["c", "a"]


def test_a_class_without_images_or_that_there_is_not_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.classes=\[a, bee\].* no class 'bee'. There is a, b, c\.$"):
        of_classes(GOOD, ["a", "bee"])
    with pytest.raises(UserError, match=r"Did you mean 'rose'\?"):
        of_classes(replace(GOOD, class_names=["rose", "tulip", "iris"]), ["tulip", "roses"])
    with pytest.raises(UserError, match="these classes have no images to test with"):
        of_classes(replace(GOOD, test_images=PIXELS[:1], test_labels=LABELS[:1]), ["b", "c"])


def test_channel_statistics_are_those_of_all_pixels() -> None:
    images = torch.randint(0, 256, (7, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.double() / 255
    means, deviations = channel_statistics(images)
    assert means == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=5e-5)
    assert deviations == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=5e-5)
    assert channel_statistics(torch.zeros_like(images))[1] == [0.0039] * 3  # and nothing is divided by nought

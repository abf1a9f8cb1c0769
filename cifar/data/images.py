"""What every data set gives, checked once when it is loaded: an own source may give anything."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cifar.base.errors import UserError

SHAPE = "(N, 3, height, width)"
MAX_NAMED = 30  # classes in a message
LEAST_STD = 1 / 255  # of a channel that has one value everywhere


@dataclass(frozen=True)
class Images:
    """Training and test images, uint8 (N, 3, H, W), their labels, int64 (N,), and the classes' names."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: list[str]


def checked(images: Any, source: str) -> Images:
    """Return what the `source` gave, labels of other whole numbers as int64; raise `UserError` if it can't be used."""
    if not isinstance(images, Images):
        raise impossible(source, f"load() returned a {type(images).__name__}", "cifar.data.images.Images")
    names = images.class_names
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise impossible(source, f"class_names={names!r}", "a list with a name for every class")
    if twice := [name for name in names if names.count(name) > 1]:
        raise impossible(source, f"class_names has {twice[0]!r} twice", "a name of its own for every class")
    for part in ("train", "test"):
        check_images(getattr(images, f"{part}_images"), f"{part}_images", source)
        check_labels(getattr(images, f"{part}_labels"), f"{part}_labels", source, len(names))
        sizes = [len(getattr(images, f"{part}_{what}")) for what in ("images", "labels")]
        if sizes[0] != sizes[1]:
            raise impossible(source, f"{part}_images are {sizes[0]}, {part}_labels {sizes[1]}", "one label an image")
    shapes = [tuple(pictures.shape[1:]) for pictures in (images.train_images, images.test_images)]
    if shapes[0] != shapes[1]:
        raise impossible(source, f"train_images are {shapes[0]} each, test_images {shapes[1]}", "one size for both")
    return replace(images, train_labels=images.train_labels.long(), test_labels=images.test_labels.long())


def of_classes(images: Images, chosen: Sequence[str]) -> Images:
    """Return the images of some classes, which get numbers in the order of their names.

    Raises `UserError` for a name that no class has, and if no image is left to train on or to test with.
    """
    given = f"data.classes=[{', '.join(chosen)}] is not possible"
    if unknown := [name for name in chosen if name not in images.class_names]:
        guesses = difflib.get_close_matches(unknown[0], images.class_names, n=1)
        hint = f" Did you mean {guesses[0]!r}?" if guesses else ""
        raise UserError(f"{given}: there is no class {unknown[0]!r}.{hint} There is {listed(images.class_names)}.")
    numbers = torch.full((len(images.class_names),), -1)
    numbers[[images.class_names.index(name) for name in chosen]] = torch.arange(len(chosen))
    parts: dict[str, Tensor] = {}
    for part in ("train", "test"):
        labels = numbers[getattr(images, f"{part}_labels")]
        is_meant = labels >= 0
        if not is_meant.any():
            raise UserError(f"{given}: these classes have no images to {part} {'on' if part == 'train' else 'with'}.")
        parts[f"{part}_images"], parts[f"{part}_labels"] = getattr(images, f"{part}_images")[is_meant], labels[is_meant]
    return Images(**parts, class_names=[*chosen])


def listed(names: Sequence[str]) -> str:
    """Return the names of classes for a message."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel of uint8 images (N, 3, H, W), as fractions of 255.

    They are over all pixels, and have the four decimals with which such numbers are published.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([images[:, channel].flatten().bincount(minlength=256) for channel in range(3)]).double()
    shares = counts / counts.sum(dim=1, keepdim=True)  # (3, 256)
    means = shares @ values
    deviations = (shares * (values - means[:, None]).square()).sum(dim=1).sqrt().clamp(min=LEAST_STD)
    return [round(value, 4) for value in means.tolist()], [round(value, 4) for value in deviations.tolist()]


def check_images(images: Any, name: str, source: str) -> None:
    """Raise `UserError` if these are not uint8 images with three channels."""
    if not isinstance(images, Tensor):
        raise impossible(source, f"{name} is a {type(images).__name__}", "a torch.Tensor")
    if images.dtype != torch.uint8:
        raise impossible(source, f"{name} has dtype {images.dtype}", "torch.uint8, pixels from 0 to 255")
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != 3 or 0 in shape:
        hint = f"; images.permute(0, 3, 1, 2) makes {SHAPE} of it" if images.ndim == 4 and shape[3] == 3 else ""
        raise impossible(source, f"{name} has shape {shape}", f"{SHAPE}, N at least 1{hint}")


def check_labels(labels: Any, name: str, source: str, num_classes: int) -> None:
    """Raise `UserError` if these are not the numbers of classes."""
    if not isinstance(labels, Tensor):
        raise impossible(source, f"{name} is a {type(labels).__name__}", "a torch.Tensor")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise impossible(source, f"{name} has dtype {labels.dtype}", "whole numbers, such as torch.int64")
    if labels.ndim != 1:
        raise impossible(source, f"{name} has shape {tuple(labels.shape)}", "(N,), the number of its class an image")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise impossible(
            source,
            f"{name} go from {int(labels.min())} to {int(labels.max())}",
            f"0 to {num_classes - 1}, because class_names has {num_classes}",
        )


def impossible(source: str, what: str, allowed: str) -> UserError:
    """Return the error for what a source gave."""
    return UserError(f"data.source._target_={source}: {what}, which is not possible: it takes {allowed}.")

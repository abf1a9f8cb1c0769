"""The operations of the automatic augmentations by their names in the papers, and how each image gets its own.

An operation makes of a magnitude a row of values, and does with such rows what it does to a batch of images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar.data.augment import maps, tones

Apply = Callable[[Tensor, Tensor], Tensor]  # from images (N, C, H, W) and their values (N, K) to images


@dataclass(frozen=True)
class Operation:
    """What to `apply` to images, and the `values`, (K,), that it takes for a magnitude, a height and a width."""

    apply: Apply
    values: Callable[[float, int, int], Tensor]


def shares(magnitude: float, height: int, width: int) -> Tensor:
    """Return how much of the image is blended with how much of another: 1 + magnitude and the rest."""
    share = 1.0 + magnitude
    return torch.tensor([share, 1.0 - share])


def threshold(magnitude: float, height: int, width: int) -> Tensor:
    """Return the magnitude."""
    return torch.tensor([magnitude])


def mask(magnitude: float, height: int, width: int) -> Tensor:
    """Return the byte whose upper bits, as many as the magnitude, are set."""
    return torch.tensor([256.0 - 2 ** (8 - int(magnitude))])


def no_values(magnitude: float, height: int, width: int) -> Tensor:
    """Return nothing, (0,)."""
    return torch.empty(0)


OPERATIONS = {
    "Identity": Operation(tones.identity, no_values),
    "ShearX": Operation(maps.moved, maps.shear_x),
    "ShearY": Operation(maps.moved, maps.shear_y),
    "TranslateX": Operation(maps.moved, maps.translate_x),
    "TranslateY": Operation(maps.moved, maps.translate_y),
    "Rotate": Operation(maps.moved, maps.rotate),
    "Brightness": Operation(tones.brightness, shares),
    "Color": Operation(tones.saturation, shares),
    "Contrast": Operation(tones.contrast, shares),
    "Sharpness": Operation(tones.sharpness, shares),
    "Posterize": Operation(tones.posterize, mask),
    "Solarize": Operation(tones.solarize, threshold),
    "AutoContrast": Operation(tones.autocontrast, no_values),
    "Equalize": Operation(tones.equalize, no_values),
    "Invert": Operation(tones.invert, no_values),
}


def each_its_own(
    images: Tensor, kinds: Tensor, rows: Tensor, kernels: Sequence[Apply], tables: Sequence[Tensor]
) -> Tensor:
    """Return every image after the kernel whose number stands in `kinds`, (N,), with its row of that kernel's table.

    On a CPU a kernel sees only the images that are meant for it. Elsewhere it sees all: to find them, one would have to
    wait for the device.
    """
    is_cpu, result = images.device.type == "cpu", images.clone()
    for kind, (kernel, table) in enumerate(zip(kernels, tables, strict=True)):
        is_meant = kinds == kind
        if not is_cpu:
            result = torch.where(is_meant[:, None, None, None], kernel(images, table[rows]), result)
        elif len(places := is_meant.nonzero().flatten()):
            result[places] = kernel(images[places], table[rows[places]])
    return result

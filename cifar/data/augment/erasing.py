"""Parts of the image that are covered: a square, or a rectangle of random size and shape.

`cifar run augment=cutout` and `augment=erasing`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar.base.errors import UserError
from cifar.base.limits import Limit, list_of, number, refuse_impossible, whole_number
from cifar.data.augment.constants import constant

NUM_TRIES = 10  # for a rectangle that is smaller than the image, as torchvision has it
UNIT = 2**24  # of the sides of rectangles: float32 holds all multiples below 1 of a 2**24th
GREY = whole_number(0, 255)
COLOUR = list_of(3, GREY, "three grey levels from 0 to 255, or null for the mean of the image").or_null()
POSITIVE = number("", lambda value: 0 < value <= 1000)
RANGE = list_of(2, POSITIVE, "two positive numbers, the smaller one first")
LIMITS = {
    "size": whole_number(1, 10_000, " of pixels"),
    "probability": number("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "area": Limit(
        f"{RANGE.words}, parts of the image from 0 to 1", lambda value: RANGE.allows(value) and value[1] <= 1
    ),
    "ratio": RANGE,
    "fill": COLOUR,
}


@dataclass(frozen=True)
class Cutout:
    """Cover a square of `size` pixels a side, whose centre may be anywhere in the image, with the colour `fill`.

    Follows DeVries & Taylor, arXiv:1708.04552; without a colour it gets the mean of the image.
    """

    size: int = 16
    fill: Sequence[int] | None = None

    def __post_init__(self) -> None:
        refuse_impossible("augment", vars(self), LIMITS)

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 2): two numbers for the centre's row and column."""
        return torch.randint(0, 2**31, (len(order), 2), generator=generator)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the images with a square covered."""
        first = [choices[:, axis] % images.shape[2 + axis] - self.size // 2 for axis in (0, 1)]
        sides = torch.full_like(choices[:, 0], self.size)
        return covered(images, first[0], first[1], sides, sides, self.fill)


@dataclass(frozen=True)
class RandomErasing:
    """Cover a rectangle with a probability; its area is a part of the image's, its ratio height over width.

    Follows Zhong et al., arXiv:1708.04896, as torchvision draws it. Without a colour it gets the mean of the image.
    """

    probability: float = 0.5
    area: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    fill: Sequence[int] | None = None

    def __post_init__(self) -> None:
        refuse_impossible("augment", vars(self), LIMITS)
        for name in ("area", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"augment.{name}={[low, high]} is not possible: it takes {RANGE.words}.")

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 23): 1 to cover or 0, two numbers for the place, the heights and the widths of ten tries.

        Those are parts of the side of a square with as many pixels as the image, in units of 2 ** -24.
        """
        size = (len(order), NUM_TRIES)
        is_hit = torch.rand((len(order), 1), generator=generator) < self.probability
        places = torch.randint(0, 2**31, (len(order), 2), generator=generator)
        areas, ratios = (torch.rand(size, generator=generator, dtype=torch.float64) for _ in range(2))
        areas = self.area[0] + (self.area[1] - self.area[0]) * areas
        low, high = map(math.log, self.ratio)
        ratios = (low + (high - low) * ratios).exp()
        sides = torch.cat([(areas * ratios).sqrt(), (areas / ratios).sqrt()], dim=1)
        return torch.cat([is_hit, places, (UNIT * sides).round().long()], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the images with a rectangle covered, the first of the tries that is less high and wide than they."""
        _, _, height, width = images.shape
        is_hit, row, column = choices[:, :3].unbind(dim=1)  # (N,) each
        sides = (choices[:, 3:].float() * (math.sqrt(height * width) / UNIT)).round().long()
        heights, widths = sides.split(NUM_TRIES, dim=1)
        fits = (heights < height) & (widths < width)
        first = fits.int().argmax(dim=1, keepdim=True)
        high, wide = (tries.gather(1, first)[:, 0] for tries in (heights, widths))
        high = torch.where(fits.any(dim=1), high, 0) * is_hit
        top, left = row % (height + 1 - high).clamp(min=1), column % (width + 1 - wide).clamp(min=1)
        return covered(images, top, left, high, wide, self.fill)


def covered(
    images: Tensor, top: Tensor, left: Tensor, high: Tensor, wide: Tensor, fill: Sequence[int] | None
) -> Tensor:
    """Return the images with a rectangle, given by (N,) each, in the colour `fill`, or in their own mean."""
    _, _, height, width = images.shape
    rows = torch.arange(height, device=images.device) - top[:, None]  # (N, H)
    columns = torch.arange(width, device=images.device) - left[:, None]  # (N, W)
    is_row = (rows >= 0) & (rows < high[:, None])
    is_column = (columns >= 0) & (columns < wide[:, None])
    inside = (is_row[:, :, None] & is_column[:, None, :])[:, None]  # (N, 1, H, W)
    if fill is None:
        colours = images.float().mean((2, 3), keepdim=True).round().to(images.dtype)
    else:
        colours = constant(tuple(fill), images.dtype, images.device).view(1, -1, 1, 1)
    return torch.where(inside, colours, images)

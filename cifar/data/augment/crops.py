"""Crops, shifts and flips: `cifar run augment=crop_flip augment.padding=2`."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar.base.limits import FLAG, refuse_impossible, whole_number

PIXELS = whole_number(0, 256, " of pixels")
LIMITS = {"padding": PIXELS, "shift": PIXELS, "cutout": PIXELS, "flip": FLAG}


@dataclass(frozen=True)
class CropFlip:
    """Pad with zeros, crop to the old size at a random place, and flip left-right with probability 1/2 if `flip`.

    Follows He et al., arXiv:1512.03385, section 4.2; every image has a place and a flip of its own.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        refuse_impossible("augment", vars(self), LIMITS)

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 3): the crop's top and left in 0 … 2 * padding, and 1 to flip or 0."""
        places = torch.randint(0, 2 * self.padding + 1, (len(order), 2), generator=generator)
        flips = torch.randint(0, 2 if self.flip else 1, (len(order), 1), generator=generator)
        return torch.cat([places, flips], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the crops, in channels_last memory."""
        _, _, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)
        top, left, flip = choices[:, :, None].unbind(dim=1)  # (N, 1) each
        rows = top + torch.arange(height, device=images.device)  # (N, H)
        return pick(padded, rows, left + across(width, flip))


@dataclass(frozen=True)
class TranslateAltflip:
    """Shift by up to `shift` pixels, the gap filled by mirroring at the edge, and flip in every other epoch.

    Whether an image begins flipped is drawn once; then it alternates, so that two epochs show every image both ways
    (K. Jordan, arXiv:2404.00498, section 3.6). `cutout` is the side of a square, with its centre anywhere, that is set
    to the image's mean (DeVries & Taylor, arXiv:1708.04552).
    """

    shift: int = 2
    cutout: int = 0

    def __post_init__(self) -> None:
        refuse_impossible("augment", vars(self), LIMITS)

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 5): shifts down and right in -shift … shift, 1 to flip or 0, two numbers for the cut's centre."""
        shifts = torch.randint(-self.shift, self.shift + 1, (len(order), 2), generator=generator)
        first = torch.randint(0, 2, (len(order),), generator=torch.Generator().manual_seed(seed))
        flips = (first[order] + epoch) % 2
        centres = torch.randint(0, 2**31, (len(order), 2), generator=generator)
        return torch.cat([shifts, flips[:, None], centres], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the shifted and flipped images, in channels_last memory."""
        _, _, height, width = images.shape
        down, right, flip, row, column = choices[:, :, None].unbind(dim=1)  # (N, 1) each
        rows = mirrored(torch.arange(height, device=images.device) - down, height)
        columns = mirrored(across(width, flip) - right, width)
        shifted = pick(images, rows, columns)
        if self.cutout:
            inside = [
                (torch.arange(size, device=images.device) - centre % size + self.cutout // 2) % 2**31 < self.cutout
                for size, centre in ((height, row), (width, column))
            ]
            cut = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]  # (N, 1, H, W)
            means = images.float().mean((2, 3), keepdim=True).round().to(images.dtype)
            shifted = torch.where(cut, means, shifted)
        return shifted


def across(width: int, flip: Tensor) -> Tensor:
    """Return the columns (N, W) from left to right, or from right to left where flip, (N, 1), is 1."""
    columns = torch.arange(width, device=flip.device)
    return torch.where(flip == 1, columns.flip(0), columns)


def mirrored(places: Tensor, size: int) -> Tensor:
    """Return the places with those outside 0 … size - 1 mirrored at the first and last pixel, as often as need be."""
    last = size - 1
    return last - (last - places.abs() % max(1, 2 * last)).abs()


def pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels (N, C, H, W) at every image's rows (N, H) and columns (N, W), in channels_last memory."""
    batch = torch.arange(len(images), device=images.device)
    picked = images[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return picked.permute(0, 3, 1, 2)

"""Batched augmentation of uint8 images on their own device: `python run.py augment=crop_flip augment.padding=2`.

Randomness is drawn for a whole epoch at once and on the CPU: `draw` gives one row of integers per image, `apply` uses
the rows of a batch. So every device sees the same augmentation, and a run can be continued in mid-epoch.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar.errors import UserError


class Augment(Protocol):
    """What the loader asks of an augmentation."""

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return int64 (num_images, K): the random choices for each image."""

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return uint8 (N, C, H, W) from images of that shape and their choices (N, K)."""


@dataclass(frozen=True)
class Unchanged:
    """Leave the images as they are."""

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return no choices: (num_images, 0)."""
        return torch.empty((num_images, 0), dtype=torch.int64)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the images themselves."""
        return images


@dataclass(frozen=True)
class CropFlip:
    """Pad with zeros, crop to the old size at a random place, and flip left-right with probability 1/2 if `flip`.

    Follows He et al., arXiv:1512.03385, section 4.2; every image has a place and a flip of its own.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise UserError(f"augment.padding={self.padding!r} is not possible: it takes 0 or more pixels.")

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return (num_images, 3): the crop's top and left in 0 … 2 * padding, and 1 to flip or 0."""
        places = torch.randint(0, 2 * self.padding + 1, (num_images, 2), generator=generator)
        flips = torch.randint(0, 2 if self.flip else 1, (num_images, 1), generator=generator)
        return torch.cat([places, flips], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the crops, in channels_last memory."""
        num_images, _, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)
        top, left, flip = choices[:, :, None].unbind(dim=1)  # (N, 1) each
        across = torch.arange(width, device=images.device)
        rows = top + torch.arange(height, device=images.device)  # (N, H)
        columns = left + torch.where(flip == 1, across.flip(0), across)  # (N, W)
        batch = torch.arange(num_images, device=images.device)
        crops = padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
        return crops.permute(0, 3, 1, 2)

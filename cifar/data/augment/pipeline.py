"""Batched augmentation of uint8 images on their own device, and how parts of it are combined.

Randomness is drawn for a whole epoch at once and on the CPU: `draw` gives one row of integers per image, `apply` uses
the rows of a batch. So every device sees the same augmentation, and a run can be continued in mid-epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from cifar.base.limits import refuse_no_parts


class Augment(Protocol):
    """What the loader asks of an augmentation."""

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return int64 (N, K): the random choices for the images of an epoch, whose indices are `order`, (N,).

        What differs from epoch to epoch comes from `generator`; `seed` is the run's and stays. K is the same for any N.
        """

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return uint8 (N, C, H, W) from images of that shape and their choices (N, K)."""


@dataclass(frozen=True)
class Unchanged:
    """Leave the images as they are."""

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return no choices: (N, 0)."""
        return torch.empty((len(order), 0), dtype=torch.int64)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the images themselves."""
        return images


@dataclass(frozen=True)
class Pipeline:
    """Several augmentations, each of the images that the one before it returns."""

    parts: Sequence[Augment]

    def __post_init__(self) -> None:
        refuse_no_parts("augment.parts", self.parts, "draw", "apply")

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return the parts' choices side by side, drawn in the parts' order."""
        return torch.cat([part.draw(order, generator, epoch, seed) for part in self.parts], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return what the last part returns."""
        for part, own in zip(self.parts, choices.split(self.widths, dim=1), strict=True):
            images = part.apply(images, own)
        return images

    @cached_property
    def widths(self) -> list[int]:
        """How many columns of the choices each part has."""
        one = torch.zeros(1, dtype=torch.int64)
        return [part.draw(one, torch.Generator()).shape[1] for part in self.parts]

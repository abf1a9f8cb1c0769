"""Noise, for tests and benchmarks: `cifar run data=random`."""

from dataclasses import dataclass

import torch

from cifar.base.errors import UserError
from cifar.data.images import Images


@dataclass(frozen=True)
class RandomImages:
    """Uniform noise, 3×32×32, with labels that take every class in turn."""

    num_train: int
    num_test: int
    num_classes: int
    seed: int

    def __post_init__(self) -> None:
        for key in ("num_train", "num_test", "num_classes"):
            if getattr(self, key) < 1:
                raise UserError(f"data.source.{key}={getattr(self, key)!r} is not possible: it takes 1 or more.")

    def load(self) -> Images:
        """Return the images; they depend on the sizes and `seed` alone."""
        generator = torch.Generator().manual_seed(self.seed)
        num_images = self.num_train + self.num_test
        images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
        labels = torch.arange(num_images) % self.num_classes
        return Images(
            images[: self.num_train],
            labels[: self.num_train],
            images[self.num_train :],
            labels[self.num_train :],
            [str(label) for label in range(self.num_classes)],
        )

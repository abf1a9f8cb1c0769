"""Training on smaller images first, which costs less: `cifar run data.size_schedule=[24,32]`.

The idea is that of progressive resizing, as in fast.ai's entry to DAWNBench (2018).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


class SizeSchedule:
    """Sizes in pixels, each for an equal share of the epochs; the last epoch always has the last of them.

    No sizes: the images stay as they are.
    """

    def __init__(self, sizes: Sequence[int] = (), epochs: int = 1) -> None:
        self.sizes, self.epochs = [*sizes], max(epochs, 1)

    def at(self, epoch: int) -> int | None:
        """Return the height and width of the images in an epoch, counted from 0; None: as they are."""
        if not self.sizes:
            return None
        return self.sizes[(min(epoch + 1, self.epochs) * len(self.sizes) - 1) // self.epochs]

    def first_epochs(self) -> list[int]:
        """Return the epochs in which each size comes first."""
        sizes = [self.at(epoch) for epoch in range(self.epochs)]
        return [epoch for epoch, size in enumerate(sizes) if size not in sizes[:epoch]]

    def apply(self, images: Tensor, epoch: int) -> Tensor:
        """Return uint8 images (N, C, S, S) from those of a larger size, each pixel a mean by distance over those near.

        Devices may differ by one in a pixel.
        """
        size = self.at(epoch)
        if size is None or tuple(images.shape[2:]) == (size, size):
            return images
        if images.device.type == "cpu":  # on bytes, which is faster there
            return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        pixels = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
        return pixels.round_().clamp_(0, 255).to(torch.uint8)

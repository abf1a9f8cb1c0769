"""Training on smaller images first, which costs less: `cifar run data.size_schedule=[24,32]`.

The idea is that of progressive resizing, as in fast.ai's entry to DAWNBench (2018).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


class SizeSchedule:
    """Sizes in pixels, each for an equal share of a run's steps; the last step always has the last of them.

    No sizes: the images stay as they are.
    """

    def __init__(self, sizes: Sequence[int] = (), epochs: int = 1) -> None:
        self.sizes, self.epochs = [*sizes], max(epochs, 1)

    def at(self, epoch: int, index: int = 0, num_batches: int = 1) -> int | None:
        """Return the height and width of the epoch's batch `index` of so many, all counted from 0; None: as it is."""
        if not self.sizes:
            return None
        step, num_steps = epoch * num_batches + index, self.epochs * num_batches
        return self.sizes[(min(step + 1, num_steps) * len(self.sizes) - 1) // num_steps]


def resized(images: Tensor, size: int | None) -> Tensor:
    """Return uint8 images (N, C, size, size) from larger ones, each pixel a mean by distance over those near.

    None leaves them as they are. Devices may differ by one in a pixel.
    """
    if size is None or tuple(images.shape[2:]) == (size, size):
        return images
    if images.device.type == "cpu":  # on bytes, which is faster there
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    pixels = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)

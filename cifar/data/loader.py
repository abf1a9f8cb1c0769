"""Batches from images that already lie on the training device: order, augmentation, normalisation, no workers."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cifar.data.augment.pipeline import Augment, Unchanged
from cifar.data.mix import Mix, Unmixed, mixed_labels
from cifar.data.sizes import SizeSchedule, resized


class Loader:
    """Yield normalised batches, `len(loader)` an epoch; the last may be smaller.

    `images` is uint8 (N, C, H, W) and `labels` int64 (N,), both on the training device; `mean` and `std` are per
    channel, for pixels as fractions of 255. An epoch's order and augmentation depend on `seed` and the epoch's number
    alone: they are the same on every device, and `epoch(number, start)` begins anywhere. `share` tells which of a
    batch's images, of which there are so many, this process has if others have the rest. With a `mix` labels are
    shares of `num_classes` classes, float32 (B, num_classes). The `sizes` in pixels are those of each batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment | None = None,
        shuffle: bool = False,
        seed: int = 0,
        channels_last: bool = False,
        share: Callable[[int], Tensor] | None = None,
        mix: Mix | None = None,
        num_classes: int = 0,
        sizes: SizeSchedule | None = None,
    ) -> None:
        self.share, self.mix, self.num_classes = share, mix or Unmixed(), num_classes
        self.images, self.labels, self.sizes = images, labels, sizes or SizeSchedule()
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.augment = augment or Unchanged()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.mean = torch.tensor(mean, device=images.device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=images.device).view(1, -1, 1, 1)

    def of(self, images: Tensor, labels: Tensor) -> "Loader":
        """Return a loader as this one, but of other images of the same size."""
        other = copy.copy(self)
        other.images, other.labels = images.to(self.images.device), labels.to(self.images.device)
        return other

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def size_of(self, index: int) -> int:
        """Return how many images the epoch's batch `index` has, in all processes."""
        return min(self.batch_size, len(self.images) - index * self.batch_size)

    def places(self) -> Tensor:
        """Return which of an unshuffled epoch's images this process has, (n,)."""
        share = self.share or torch.arange
        return torch.cat([index * self.batch_size + share(self.size_of(index)) for index in range(len(self))])

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs, float32 (B, C, H, W), and labels, (B,), from the epoch's batch `start` on."""
        num_images, device = len(self.images), self.images.device
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number))
        order = torch.randperm(num_images, generator=generator) if self.shuffle else torch.arange(num_images)
        choices = self.augment.draw(order, generator, number, self.seed).to(device)
        mixes: list[list[int]] = self.mix.draw(len(self), generator).tolist()
        order = order.to(device)

        def batch(pixels: int | None, places: slice | Tensor) -> tuple[Tensor, Tensor]:
            images = self.augment.apply(self.images[order[places]], choices[places])
            return self.normalise(resized(images, pixels)), self.labels[order[places]]

        for index in range(start, len(self)):
            first, size = index * self.batch_size, self.size_of(index)
            sized = partial(batch, self.sizes.at(number, index, len(self)))
            if mixes[index]:
                yield self.mixed(sized, first, size, mixes[index])
            elif self.share is not None:
                yield sized(first + self.share(size).to(device))
            else:
                yield sized(slice(first, first + size))

    def mixed(
        self, batch: Callable[[slice | Tensor], tuple[Tensor, Tensor]], first: int, size: int, choices: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return what this process has of a mixed batch, whose images begin with the epoch's `first`."""
        if self.share is None:
            inputs, labels = batch(slice(first, first + size))
            partners, other_labels = inputs.roll(1, 0), labels.roll(1)
        else:
            own = self.share(size)  # (n,)
            before = (own - 1) % size
            needed = torch.cat([own, before]).unique()
            found, classes = batch((first + needed).to(self.images.device))
            here, there = (torch.searchsorted(needed, places).to(self.images.device) for places in (own, before))
            inputs, labels, partners, other_labels = found[here], classes[here], found[there], classes[there]
        mixed, share = self.mix.apply(inputs, partners, choices)
        return mixed, mixed_labels(labels, other_labels, share, self.num_classes)

    def first_inputs(self, num_images: int = 5000) -> Tensor:
        """Return the first images (N, C, H, W), normalised and not augmented."""
        return self.normalise(self.images[:num_images])

    def normalise(self, images: Tensor) -> Tensor:
        """Return (images / 255 - mean) / std, rounded as torchvision's ToTensor and Normalize round it."""
        inputs = images.to(torch.float32, memory_format=self.memory_format)
        return inputs.div_(255).sub_(self.mean).div_(self.std)


def derive_seed(seed: int, epoch: int) -> int:
    """Return a seed for torch that is independent for every `seed` and `epoch` (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(seed, spawn_key=(epoch,)).generate_state(1, np.uint64)[0])

"""Batches: normalisation against torchvision, order, and reproducibility."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import transforms

from cifar.data.augment.crops import CropFlip
from cifar.data.loader import Loader, derive_seed

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def make_loader(num_images: int = 25, **options: Any) -> Loader:
    """Return a loader over noise; an image's label is its index."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    options = {"batch_size": 10, "mean": MEAN, "std": STD, **options}
    return Loader(images, torch.arange(num_images), **options)


def labels_of(loader: Loader, epoch: int, start: int = 0) -> list[list[int]]:
    return [labels.tolist() for _, labels in loader.epoch(epoch, start)]


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_are_bit_identical_to_torchvisions(channels_last: bool) -> None:
    theirs = transforms.Compose([transforms.ToPILImage(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    loader = make_loader(channels_last=channels_last)
    inputs = torch.cat([inputs for inputs, _ in loader.epoch(0)])
    assert torch.equal(inputs, torch.stack([theirs(image) for image in loader.images]))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert all(batch.is_contiguous(memory_format=memory_format) for batch, _ in loader.epoch(0))


def test_all_values_of_a_byte_are_normalised_as_torchvision_does() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16).contiguous()
    loader = Loader(ramp, torch.zeros(1, dtype=torch.int64), batch_size=1, mean=MEAN, std=STD)
    expected = transforms.Normalize(MEAN, STD)(ramp.float().div(255))
    assert torch.equal(next(loader.epoch(0))[0], expected)


def test_without_shuffle_the_order_is_the_data_sets_and_the_last_batch_is_kept() -> None:
    loader = make_loader()
    assert len(loader) == 3
    assert labels_of(loader, 0) == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]


def test_shuffle_gives_every_image_once_in_an_order_that_changes_with_epoch_and_seed() -> None:
    orders = [
        [label for batch in labels_of(make_loader(shuffle=True, seed=seed), epoch) for label in batch]
        for seed in range(3)
        for epoch in range(3)
    ]
    assert all(sorted(order) == [*range(25)] for order in orders)
    assert len({tuple(order) for order in orders}) == 9


def epoch_tensors(loader: Loader, epoch: int, start: int = 0) -> Tensor:
    return torch.cat([inputs for inputs, _ in loader.epoch(epoch, start)])


def test_an_epoch_depends_on_seed_and_number_alone_and_can_begin_anywhere() -> None:
    options: dict[str, Any] = {"shuffle": True, "seed": 7, "augment": CropFlip()}
    loader = make_loader(**options)
    whole = epoch_tensors(loader, 3)
    torch.manual_seed(12345)  # the global generator has no part in it
    assert torch.equal(epoch_tensors(make_loader(**options), 3), whole)
    for start in range(4):
        rest = [*make_loader(**options).epoch(3, start)]
        assert len(rest) == 3 - start
        if rest:
            assert torch.equal(torch.cat([inputs for inputs, _ in rest]), whole[10 * start :])


def test_augmentation_follows_the_image_through_the_shuffle_and_changes_with_the_epoch() -> None:
    plain, augmented = make_loader(shuffle=True), make_loader(shuffle=True, augment=CropFlip(padding=0))
    pairs = zip(epoch_tensors(plain, 0), epoch_tensors(augmented, 0), strict=True)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in pairs)
    shifted = make_loader(augment=CropFlip())
    assert not torch.equal(epoch_tensors(shifted, 0), epoch_tensors(shifted, 1))


def test_derived_seeds_differ() -> None:
    seeds = {derive_seed(seed, epoch) for seed in range(30) for epoch in range(30)}
    assert len(seeds) == 900
    assert derive_seed(0, 0) == 8668861027912758289  # numpy's documented stream: stable over releases and machines

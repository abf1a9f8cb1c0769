"""Augmentation against torchvision's transforms, image by image and in distribution."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from cifar.base.errors import UserError
from cifar.data.augment.crops import CropFlip, TranslateAltflip, mirrored
from cifar.data.augment.pipeline import Unchanged


def noise(num_images: int, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_images, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("height", "width", "padding"), [(32, 32, 4), (32, 32, 0), (8, 12, 3)])
def test_every_choice_is_torchvisions_pad_crop_and_flip(height: int, width: int, padding: int) -> None:
    places = range(2 * padding + 1)
    choices = torch.tensor([[top, left, flip] for top in places for left in places for flip in (0, 1)])
    images = noise(len(choices), height, width)
    augmented = CropFlip(padding).apply(images, choices)
    for image, result, (top, left, flip) in zip(images, augmented, choices.tolist(), strict=True):
        expected = functional.crop(functional.pad(image, [padding]), top, left, height, width)
        assert torch.equal(result, functional.hflip(expected) if flip else expected)
    assert augmented.dtype == torch.uint8
    assert augmented.is_contiguous(memory_format=torch.channels_last)


def read_choice(image: Tensor) -> tuple[int, int, int]:
    """Return top, left and flip of an augmented image whose pixels were all different."""
    rows, columns = image[0, 16].tolist(), image[1, :, 16].tolist()
    flip = int(rows[15] > rows[16])
    return columns[16] - 12, (rows[16] - 12) if not flip else (rows[15] - 12), flip


def coordinates() -> Tensor:
    """Return an image (3, 32, 32) whose first channel is a pixel's column and whose second is its row."""
    axis = torch.arange(32, dtype=torch.uint8)
    return torch.stack([axis.expand(32, 32), axis[:, None].expand(32, 32), torch.zeros(32, 32, dtype=torch.uint8)])


def frequencies(images: Tensor) -> Tensor:
    """Return how often each of the 9 · 9 · 2 choices occurs among augmented coordinate images (N, 3, 32, 32)."""
    counts = torch.zeros(9, 9, 2)
    for image in images:
        counts[read_choice(image)] += 1
    return counts.flatten() / len(images)


def test_distribution_is_torchvisions() -> None:
    torch.manual_seed(0)
    num_images = 16_200  # 100 for each choice, so the standard error of a cell is a tenth of it
    theirs = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    batch = coordinates().expand(num_images, 3, 32, 32)
    augment = CropFlip(padding=4)
    ours = augment.apply(batch, augment.draw(torch.arange(num_images), torch.Generator().manual_seed(0)))
    reference = torch.stack([theirs(coordinates()) for _ in range(num_images)])
    for observed in (frequencies(ours), frequencies(reference)):
        chi_square = num_images * ((observed - 1 / 162) ** 2 * 162).sum().item()
        assert 161 - 5 * 18 < chi_square < 161 + 5 * 18  # mean and five standard deviations for 161 degrees of freedom


def test_images_of_a_batch_have_choices_of_their_own() -> None:
    choices = CropFlip(padding=4).draw(torch.arange(50_000), torch.Generator().manual_seed(1)).double()
    correlation = torch.corrcoef(torch.cat([choices[:-1], choices[1:]], dim=1).T)  # with the next image as well
    assert (correlation - torch.eye(6)).abs().max() < 0.03
    assert not torch.equal(
        choices[:100], CropFlip(padding=4).draw(torch.arange(100), torch.Generator().manual_seed(2)).double()
    )


def test_without_flip_nothing_is_flipped() -> None:
    choices = CropFlip(padding=4, flip=False).draw(torch.arange(1000), torch.Generator().manual_seed(0))
    assert choices[:, 2].sum() == 0
    assert choices[:, :2].unique().tolist() == list(range(9))


def test_unchanged_returns_the_images() -> None:
    images = noise(3)
    choices = Unchanged().draw(torch.arange(3), torch.Generator())
    assert choices.shape == (3, 0)
    assert Unchanged().apply(images, choices) is images


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CropFlip, {"padding": -1}, "augment.padding=-1 "),
        (CropFlip, {"padding": 1.5}, "augment.padding=1.5 "),
        (CropFlip, {"padding": True}, "augment.padding=True "),
        (CropFlip, {"padding": None}, "augment.padding=None "),
        (CropFlip, {"padding": float("inf")}, "augment.padding=inf "),
        (CropFlip, {"padding": 10**12}, "augment.padding=1000000000000 "),
        (CropFlip, {"flip": "maybe"}, "augment.flip='maybe' "),
        (CropFlip, {"flip": 1}, "augment.flip=1 "),
        (TranslateAltflip, {"shift": -1}, "augment.shift=-1 "),
        (TranslateAltflip, {"shift": 2.0}, "augment.shift=2.0 "),
        (TranslateAltflip, {"cutout": -3}, "augment.cutout=-3 "),
        (TranslateAltflip, {"cutout": "12"}, "augment.cutout='12' "),
    ],
)
def test_impossible_values_are_refused(kind: Callable[..., object], values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}is not possible: it takes "):
        kind(**values)


def test_every_shift_is_torchvisions_reflected_crop() -> None:
    places = range(-2, 3)
    choices = torch.tensor([[down, right, flip, 0, 0] for down in places for right in places for flip in (0, 1)])
    images = noise(len(choices))
    augmented = TranslateAltflip(shift=2).apply(images, choices)
    for image, result, (down, right, flip, *_) in zip(images, augmented, choices.tolist(), strict=True):
        padded = functional.pad(functional.hflip(image) if flip else image, [2], padding_mode="reflect")
        left = 2 + right if flip else 2 - right
        assert torch.equal(result, functional.crop(padded, 2 - down, left, 32, 32))


def test_every_image_is_flipped_in_every_other_epoch_and_half_of_them_in_each() -> None:
    augment, order = TranslateAltflip(), torch.randperm(1000, generator=torch.Generator().manual_seed(3))
    flips = []
    for epoch in range(4):
        drawn = torch.empty(1000, dtype=torch.int64)
        drawn[order] = augment.draw(order, torch.Generator().manual_seed(epoch), epoch, seed=7)[:, 2]
        flips.append(drawn)
    assert torch.equal(flips[0], flips[2])
    assert torch.equal(flips[1], 1 - flips[0])
    assert torch.equal(flips[1], flips[3])
    assert 400 < int(flips[0].sum()) < 600
    other = augment.draw(torch.arange(1000), torch.Generator(), 0, seed=8)[:, 2]
    assert not torch.equal(other, flips[0])


def test_shifts_are_even_and_a_cut_is_a_square_of_the_images_mean() -> None:
    augment = TranslateAltflip(shift=2, cutout=6)
    choices = augment.draw(torch.arange(10_000), torch.Generator().manual_seed(0))
    for column in (0, 1):
        counts = torch.bincount(choices[:, column] + 2, minlength=5)
        assert counts.min() > 1800
        assert counts.max() < 2200
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images[:, :, ::2] = 200  # a mean of 100, which no pixel has
    choices = torch.tensor([[0, 0, 0, 10, 20], [0, 0, 1, 16, 16], [0, 0, 0, 32 * 5 + 8, 9], [0, 0, 0, 0, 31]])
    cut = augment.apply(images, choices) == 100
    assert cut[0, 0].nonzero().amin(0).tolist() == [7, 17]
    assert cut[0, 0].nonzero().amax(0).tolist() == [12, 22]
    assert [int(part.sum()) for part in cut[:, 0]] == [36, 36, 36, 12]
    assert torch.equal(cut[:, 0], cut[:, 2])


def test_a_shift_beyond_the_image_is_mirrored_again_and_again() -> None:
    assert mirrored(torch.arange(-7, 10), size=4).tolist() == [1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert mirrored(torch.arange(-2, 3), size=1).tolist() == [0] * 5

"""Colour jitter against torchvision's, image by image and in distribution."""

import re

import pytest
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from cifar.base.errors import UserError
from cifar.data.augment.colour import ORDERS, UNIT, ColourJitter
from tests.data.augment.test_operations import photographs

FUNCTIONS = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)


def draw(augment: ColourJitter, num_images: int) -> Tensor:
    return augment.draw(torch.arange(num_images), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("amounts", [(0.4, 0.4, 0.4), (2.5, 0.0, 1.0)], ids=str)
def test_each_image_is_torchvisions_at_the_same_factors_in_the_same_order(amounts: tuple[float, float, float]) -> None:
    augment, images = ColourJitter(*amounts), photographs(300, 12, 16)
    choices = draw(augment, 300)
    for image, (order, *factors), result in zip(images, choices.tolist(), augment.apply(images, choices), strict=True):
        expected = image
        for number in ORDERS[order]:
            expected = FUNCTIONS[number](expected, float(torch.tensor(factors[number], dtype=torch.float32)) / UNIT)
        assert torch.equal(result, expected)


def test_factors_and_orders_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    choices = draw(ColourJitter(0.4, 1.5, 0.1), 12_000)
    theirs = transforms.ColorJitter(0.4, 1.5, 0.1)
    drawn = [theirs.get_params(theirs.brightness, theirs.contrast, theirs.saturation, None)[1:4] for _ in range(4000)]
    points = torch.linspace(0, 1, 11, dtype=torch.float64)
    for number in range(3):
        ours = torch.quantile(choices[:, 1 + number].double() / UNIT, points)
        reference = torch.quantile(torch.tensor([factors[number] for factors in drawn]).double(), points)
        torch.testing.assert_close(ours, reference, atol=0.05 * float(reference[-1] - reference[0]), rtol=0)
    counts = torch.bincount(choices[:, 0], minlength=6)
    assert abs(float(((counts - 2000) ** 2 / 2000).sum()) - 5) < 5 * 10**0.5
    correlation = torch.corrcoef(choices.double().T)
    assert (correlation - torch.eye(4)).abs().max() < 0.05


def test_an_amount_of_zero_changes_nothing() -> None:
    augment, images = ColourJitter(0, 0, 0), photographs(60, 8, 8)
    assert torch.equal(augment.apply(images, draw(augment, 60)), images)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_impossible_values_are_refused(name: str) -> None:
    for value in (-0.1, 101, "much", None):
        with pytest.raises(UserError, match=f"^{re.escape(f'augment.{name}={value!r} ')}is not possible: it takes "):
            ColourJitter(**{name: value})  # type: ignore[arg-type]

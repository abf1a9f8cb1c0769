"""Cutout by counting its pixels; random erasing against torchvision's, image by image and in distribution."""

import re
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision import transforms

from cifar.base.errors import UserError
from cifar.data.augment.erasing import UNIT, Cutout, RandomErasing

GREY = [125, 123, 114]


def draw(augment: Cutout | RandomErasing, num_images: int) -> Tensor:
    return augment.draw(torch.arange(num_images), torch.Generator().manual_seed(0))


def boxes(images: Tensor) -> Tensor:
    """Return top, left, height and width of what is covered with black in white images, (N, 4); zeros for nothing."""
    inside = images[:, 0] == 0
    rows, columns = inside.any(2).int(), inside.any(1).int()  # (N, H), (N, W)
    high, wide = rows.sum(1), columns.sum(1)
    assert torch.equal(inside.sum((1, 2)), high * wide)
    return torch.stack([rows.argmax(1), columns.argmax(1), high, wide], dim=1)


def test_a_cutout_is_a_square_around_a_pixel_of_the_image_and_cut_off_at_its_edge() -> None:
    centres = torch.tensor([[row, column] for row in range(32) for column in range(32)])
    white = torch.full((len(centres), 3, 32, 32), 255, dtype=torch.uint8)
    for size in (1, 6, 7, 100):
        covered = Cutout(size, [0, 0, 0]).apply(white, centres + 32 * 5)
        first = (centres - size // 2).clamp(min=0)
        last = (centres - size // 2 + size).clamp(max=32)
        assert torch.equal(boxes(covered), torch.cat([first, last - first], dim=1))
    counts = torch.zeros(32, 32)
    counts.index_put_(tuple((draw(Cutout(), 32_000) % 32).T), torch.tensor(1.0), accumulate=True)
    assert abs(float(((counts - 31.25) ** 2 / 31.25).sum()) - 1023) < 5 * 2046**0.5


def test_what_covers_is_the_colour_or_the_mean_of_the_image() -> None:
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    choices = torch.full((9, 2), 4)
    assert (Cutout(2, GREY).apply(images, choices)[:, :, 4, 4] == torch.tensor(GREY)).all()
    means = images.double().mean((2, 3)).round().to(torch.uint8)
    covered = Cutout(2).apply(images, choices)
    assert torch.equal(covered[:, :, 3:5, 3:5], means[:, :, None, None].expand(-1, -1, 2, 2))
    assert torch.equal(covered[:, :, 5:], images[:, :, 5:])


@pytest.mark.parametrize("size", [(32, 32), (20, 48)], ids=str)
def test_an_erased_rectangle_is_torchvisions(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the areas and ratios of the tries, and the place."""
    augment = RandomErasing(1.0, (0.2, 0.9), (0.3, 3.3), [0, 0, 0])
    choices = draw(augment, 300)
    white = torch.full((300, 3, *size), 255, dtype=torch.uint8)
    found = boxes(augment.apply(white, choices))
    sides = choices[:, 3:].double() / UNIT
    areas, ratios = sides[:, :10] * sides[:, 10:], sides[:, :10] / sides[:, 10:]
    num_whole = 0
    for row, top, left, mine in zip(range(300), *choices[:, 1:3].T.tolist(), found.tolist(), strict=True):
        drawn = iter(torch.stack([areas[row], ratios[row].log()], dim=1).flatten().tolist())
        places = iter((top, left))
        monkeypatch.setattr(Tensor, "uniform_", lambda self, low, high, drawn=drawn: self.double().fill_(next(drawn)))
        monkeypatch.setattr(
            torch, "randint", lambda low, high, size, places=places: torch.tensor([next(places) % high])
        )
        *box, _ = transforms.RandomErasing.get_params(white[row], (0.2, 0.9), (0.3, 3.3), [0.0])
        monkeypatch.undo()
        if box == [0, 0, *size]:  # none of ten tries fitted, so nothing is covered
            num_whole += 1
            box = [0, 0, 0, 0]
        assert mine == box
    assert (num_whole > 0) == (size == (20, 48))


def test_erased_rectangles_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    white = torch.full((8000, 3, 32, 32), 255, dtype=torch.uint8)
    augment = RandomErasing(fill=[0, 0, 0])
    ours = boxes(augment.apply(white, draw(augment, 8000)))
    hit = ours[ours[:, 2] > 0]
    assert len(hit) == pytest.approx(4000, abs=5 * 2000**0.5)
    drawn = [transforms.RandomErasing.get_params(white[0], (0.02, 0.33), (0.3, 3.3), [0.0]) for _ in range(3000)]
    reference = torch.tensor([box[:4] for box in drawn])
    larger = RandomErasing(1.0, (0.05, 0.36), fill=[0, 0, 0])
    other = boxes(larger.apply(white[:3000], draw(larger, 3000)))
    for column in range(4):
        assert ks_2samp(hit[:, column], reference[:, column]).pvalue > 0.001
    assert ks_2samp(other[:, 2], reference[:, 2]).pvalue < 0.001  # so the comparison can fail
    areas = (hit[:, 2] * hit[:, 3]).double()
    assert float(areas.mean()) == pytest.approx(0.175 * 1024, abs=6)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Cutout, {"size": 0}, "augment.size=0 "),
        (Cutout, {"fill": [0, 0]}, "augment.fill=[0, 0] "),
        (Cutout, {"fill": [0, 0, 256]}, "augment.fill=[0, 0, 256] "),
        (RandomErasing, {"probability": 1.5}, "augment.probability=1.5 "),
        (RandomErasing, {"area": [0.1, 1.1]}, "augment.area=[0.1, 1.1] "),
        (RandomErasing, {"area": [0.2, 0.1]}, "augment.area=[0.2, 0.1] "),
        (RandomErasing, {"ratio": [0, 1]}, "augment.ratio=[0, 1] "),
        (RandomErasing, {"ratio": 1}, "augment.ratio=1 "),
    ],
)
def test_impossible_values_are_refused(kind: Any, values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}is not possible: it takes "):
        kind(**values)

"""The automatic augmentations against torchvision's: spaces, how often each choice is drawn, whole images."""

import re
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, autoaugment

from cifar.base.errors import UserError
from cifar.data.augment.policies import CIFAR10_POLICY, SIGNED, AutoAugment, Policy, RandAugment, TrivialAugment
from tests.data.augment.test_operations import photographs

CIFAR10 = autoaugment.AutoAugmentPolicy.CIFAR10
POLICIES = {"trivial": TrivialAugment(), "rand": RandAugment(), "many": RandAugment(3, 30), "auto": AutoAugment()}
Chosen = tuple[tuple[str, float], ...]  # operations with their magnitudes


def draw(policy: Policy, num_images: int, seed: int = 0) -> Tensor:
    return policy.draw(torch.arange(num_images), torch.Generator().manual_seed(seed))


def chosen(policy: Policy, row: list[int], size: tuple[int, int] = (32, 32)) -> Chosen:
    """Return what a row of choices stands for."""
    space = policy.space(*size)
    names = [*space]
    operations = []
    for number, level, is_negative in zip(row[::3], row[1::3], row[2::3], strict=True):
        magnitude = float(space[names[number]][level])
        operations.append((names[number], -magnitude if is_negative and names[number] in SIGNED else magnitude))
    return tuple(operations)


def theirs(transform: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch, num_images: int) -> list[Chosen]:
    """Return what torchvision's transform does to images."""
    operations: list[tuple[str, float]] = []

    def note(image: Tensor, name: str, magnitude: float, **options: object) -> Tensor:
        operations.append((name, magnitude))
        return image

    monkeypatch.setattr(autoaugment, "_apply_op", note)
    found = []
    for _ in range(num_images):
        operations.clear()
        transform(torch.zeros(3, 32, 32, dtype=torch.uint8))
        found.append(tuple(operations))
    return found


@pytest.mark.parametrize("size", [(32, 32), (20, 48)], ids=str)
def test_the_spaces_are_torchvisions(size: tuple[int, int]) -> None:
    pairs = [
        (TrivialAugment(31).space(*size), autoaugment.TrivialAugmentWide()._augmentation_space(31)),
        (TrivialAugment(5).space(*size), autoaugment.TrivialAugmentWide()._augmentation_space(5)),
        (AutoAugment().space(*size), {"Identity": (torch.tensor(0.0), False)}
         | autoaugment.AutoAugment(CIFAR10)._augmentation_space(10, size)),
    ]  # fmt: skip
    for ours, reference in pairs:
        assert [*ours] == [*reference]
        for name, (magnitudes, is_signed) in reference.items():
            assert torch.equal(ours[name], magnitudes.expand_as(ours[name]).float()), name
            assert is_signed == (name in SIGNED)
    reference = autoaugment.RandAugment()._augmentation_space(31, size)
    for name, magnitudes in RandAugment(2, 9, 31).space(*size).items():
        level = reference[name][0]
        assert magnitudes.tolist() == [float(level[9]) if level.ndim else 0.0]


def test_the_policy_for_cifar10_is_torchvisions() -> None:
    reference = autoaugment.AutoAugment(CIFAR10).policies
    ours = [tuple((name, tenths / 10, level) for name, tenths, level in pair) for pair in CIFAR10_POLICY]
    assert ours == [tuple((name, share, level or 0) for name, share, level in pair) for pair in reference]


def agrees(ours: Counter[str], reference: Counter[str]) -> bool:
    """Return whether two samples may be of one distribution: chi-square, five deviations, rare cells as one."""
    cells = [key for key in ours | reference if ours[key] + reference[key] >= 20]
    pairs = [(ours[key], reference[key]) for key in cells]
    pairs.append((ours.total() - sum(a for a, _ in pairs), reference.total() - sum(b for _, b in pairs)))
    expected = ours.total() / reference.total()
    parts = [(a - expected * b) ** 2 / (expected * (a + b)) for a, b in pairs if a + b]
    return bool(abs(sum(parts) - (len(parts) - 1)) < 5 * (2 * len(parts)) ** 0.5)


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("trivial", autoaugment.TrivialAugmentWide()),
        ("rand", autoaugment.RandAugment()),
        ("auto", autoaugment.AutoAugment(CIFAR10)),
    ],
)
def test_operations_and_magnitudes_are_as_frequent_as_torchvisions(
    name: str, transform: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    policy = POLICIES[name]
    reference = theirs(transform, monkeypatch, 2500)
    ours = [chosen(policy, row) for row in draw(policy, 10_000).tolist()]
    if name == "auto":  # what torchvision leaves out is Identity here
        ours = [tuple(step for step in steps if step[0] != "Identity") for steps in ours]
    for part in (lambda steps: str(steps[:1]), lambda steps: str([step for step, _ in steps]), str):
        assert agrees(Counter(map(part, ours)), Counter(map(part, reference)))
    shifted = Counter(str([(step, abs(magnitude)) for step, magnitude in steps]) for steps in ours)
    assert not agrees(shifted, Counter(map(str, reference)))  # so the comparison can fail


@pytest.mark.parametrize("size", [(32, 32), (12, 20)], ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_is_what_torchvision_makes_of_each_image_with_these_choices(name: str, size: tuple[int, int]) -> None:
    policy, images = POLICIES[name], photographs(400, *size)
    choices = draw(policy, 400)
    for image, row, result in zip(images, choices.tolist(), policy.apply(images, choices), strict=True):
        expected = image
        for step, magnitude in chosen(policy, row, size):
            expected = autoaugment._apply_op(expected, step, magnitude, InterpolationMode.NEAREST, None)
        assert torch.equal(result, expected), chosen(policy, row, size)


@pytest.mark.parametrize("name", POLICIES)
def test_a_part_of_a_batch_gives_the_same_images(name: str) -> None:
    policy, images = POLICIES[name], photographs(50, 32, 32)
    choices = draw(policy, 50)
    whole = policy.apply(images, choices)
    assert torch.equal(policy.apply(images[20:27], choices[20:27]), whole[20:27])
    assert policy.apply(images[:0], choices[:0]).shape == (0, 3, 32, 32)
    assert torch.equal(draw(policy, 50), choices)
    assert not torch.equal(draw(policy, 50, seed=1), choices)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrivialAugment(1), "augment.num_magnitudes=1 is not possible"),
        (lambda: RandAugment(0), "augment.num_ops=0 is not possible"),
        (lambda: RandAugment(2, -1), "augment.magnitude=-1 is not possible"),
        (lambda: RandAugment(2, 31), "augment.magnitude=31 is not possible: it takes a whole number less than"),
    ],
)
def test_impossible_values_are_refused(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make()

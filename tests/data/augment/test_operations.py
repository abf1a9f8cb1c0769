"""Every operation at every magnitude against torchvision's functions of one image, to the last grey level."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, autoaugment

from cifar.data.augment.operations import OPERATIONS, Apply, each_its_own

SIZES = [(32, 32), (9, 12), (2, 5)]
Space = dict[str, tuple[Tensor, bool]]
SPACES: dict[str, Callable[[tuple[int, int]], Space]] = {
    "trivial": lambda size: autoaugment.TrivialAugmentWide()._augmentation_space(31),
    "rand": lambda size: autoaugment.RandAugment()._augmentation_space(31, size),
    "auto": lambda size: autoaugment.AutoAugment()._augmentation_space(10, size),
}


def photographs(num_images: int, height: int, width: int) -> Tensor:
    """Return noise; noise of few values, of few values in one channel; gradients; one colour; black; white."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, height, width), dtype=torch.uint8, generator=generator)
    images[1::7] = images[1::7] // 4 + 60
    images[2::7, 1] = images[2::7, 1] // 100
    images[3::7] = torch.linspace(3, 230, width).to(torch.uint8)
    images[4::7] = torch.tensor([10, 200, 31], dtype=torch.uint8)[:, None, None]
    images[5::7], images[6::7] = 0, 255
    return images


def magnitudes(space: Space, name: str) -> list[float]:
    """Return all magnitudes that torchvision may give an operation, with their signs."""
    levels, is_signed = space[name]
    return [sign * level for level in levels.reshape(-1).tolist() for sign in ((1, -1) if is_signed else (1,))]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_magnitude_is_torchvisions(name: str, size: tuple[int, int]) -> None:
    spaces = [make(size) for make in SPACES.values()]
    values = sorted({value for space in spaces if name in space for value in magnitudes(space, name)})
    images = photographs(7, *size)
    for value in values:
        rows = OPERATIONS[name].values(value, *size).expand(7, -1)
        found = OPERATIONS[name].apply(images, rows)
        assert found.dtype == torch.uint8
        for image, result in zip(images, found, strict=True):
            expected = autoaugment._apply_op(image, name, value, InterpolationMode.NEAREST, None)
            assert torch.equal(result, expected), value


def test_all_of_torchvisions_operations_are_there() -> None:
    assert {name for make in SPACES.values() for name in make((32, 32))} == {*OPERATIONS}


@pytest.mark.parametrize("channels_last", [False, True])
def test_in_a_batch_each_image_gets_its_own_operation_and_value(channels_last: bool) -> None:
    names, images = [*OPERATIONS], photographs(150, 32, 32)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    kinds = torch.randint(len(names), (150,), generator=generator)
    rows = torch.randint(2, (150,), generator=generator)
    levels = {name: (7.0, 5.0) if name == "Posterize" else (0.5, -0.25) for name in names}
    tables = [torch.stack([OPERATIONS[name].values(level, 32, 32) for level in levels[name]]) for name in names]
    before = images.clone()
    found = each_its_own(images, kinds, rows, [OPERATIONS[name].apply for name in names], tables)
    for image, kind, row, result in zip(images, kinds.tolist(), rows.tolist(), found, strict=True):
        name = names[kind]
        assert torch.equal(
            result, autoaugment._apply_op(image, name, levels[name][row], InterpolationMode.NEAREST, None)
        )
    assert torch.equal(images, before)


def test_a_device_that_would_have_to_be_waited_for_gives_the_same() -> None:
    class Elsewhere(Tensor):
        """A tensor that says of itself that it lies on a GPU."""

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("cuda")

    names, images = ["Identity", "Equalize", "Rotate"], photographs(30, 8, 8)
    tables = [torch.stack([OPERATIONS[name].values(level, 8, 8) for level in (20.0, -40.0)]) for name in names]
    kinds, rows = torch.arange(30) % 3, torch.arange(30) % 2
    kernels = [OPERATIONS[name].apply for name in names]
    expected = each_its_own(images, kinds, rows, kernels, tables)
    sizes = []

    def counted(kernel: Apply) -> Apply:
        def apply(images: Tensor, values: Tensor) -> Tensor:
            sizes.append(len(images))
            return kernel(images.as_subclass(Tensor), values)

        return apply

    found = each_its_own(images.as_subclass(Elsewhere), kinds, rows, [*map(counted, kernels)], tables)
    assert torch.equal(found.as_subclass(Tensor), expected)
    assert sizes == [30, 30, 30]

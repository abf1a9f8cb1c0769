"""Parts one after the other equal the parts themselves; every choice of the group in a loader, in any epoch."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from cifar.base.errors import UserError
from cifar.data.augment.colour import ColourJitter
from cifar.data.augment.crops import CropFlip, TranslateAltflip
from cifar.data.augment.erasing import Cutout, RandomErasing
from cifar.data.augment.pipeline import Augment, Pipeline, Unchanged
from cifar.data.augment.policies import AutoAugment, RandAugment, TrivialAugment
from cifar.data.loader import Loader, derive_seed
from cifar.experiment.building import create
from tests.conftest import ROOT, Compose
from tests.data.augment.test_operations import photographs

PARTS: list[Augment] = [
    CropFlip(), TranslateAltflip(2, 4), Unchanged(), Cutout(8), RandomErasing(), ColourJitter(), TrivialAugment(),
    RandAugment(), AutoAugment(),
]  # fmt: skip
CHOICES, MIXES = (sorted(path.stem for path in (ROOT / "conf" / name).glob("*.yaml")) for name in ("augment", "mix"))


def test_a_pipeline_draws_and_does_what_its_parts_do_one_after_the_other() -> None:
    order, images = torch.randperm(40), photographs(40, 32, 32)
    pipeline = Pipeline(PARTS)
    choices = pipeline.draw(order, torch.Generator().manual_seed(5), 3, 7)
    generator, expected, columns = torch.Generator().manual_seed(5), images, []
    for part in PARTS:
        columns.append(part.draw(order, generator, 3, 7))
        expected = part.apply(expected, columns[-1])
    assert torch.equal(choices, torch.cat(columns, dim=1))
    assert choices.dtype == torch.int64
    assert torch.equal(pipeline.apply(images, choices), expected)


def test_a_pipeline_of_one_part_is_that_part() -> None:
    """So what is combined with crop_flip crops as crop_flip alone does."""
    alone, combined = CropFlip(), Pipeline([CropFlip(), Unchanged()])
    drawn = [augment.draw(torch.arange(9), torch.Generator().manual_seed(1)) for augment in (alone, combined)]
    assert torch.equal(*drawn)
    first = Pipeline([CropFlip(), TrivialAugment()]).draw(torch.arange(9), torch.Generator().manual_seed(1))
    assert torch.equal(first[:, :3], drawn[0])


def loader_of(augment: Augment) -> Loader:
    images = photographs(23, 32, 32)
    options: dict[str, Any] = {"batch_size": 5, "mean": [0.5] * 3, "std": [0.25] * 3, "shuffle": True, "seed": 7}
    return Loader(images, torch.arange(23), augment=augment, **options)


def inputs_of(loader: Loader, epoch: int, start: int = 0) -> Tensor:
    return torch.cat([inputs for inputs, _ in loader.epoch(epoch, start)])


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_depends_on_seed_and_epoch_alone_and_can_begin_anywhere(compose: Compose, choice: str) -> None:
    augment = create(compose(f"augment={choice}").augment)
    whole = inputs_of(loader_of(augment), 2)
    torch.manual_seed(99)
    assert torch.equal(inputs_of(loader_of(augment), 2, start=3), whole[15:])
    share = Loader(
        photographs(23, 32, 32), torch.arange(23), augment=augment, batch_size=5, mean=[0.5] * 3, std=[0.25] * 3,
        shuffle=True, seed=7, share=lambda size: torch.arange(size // 2, size),
    )  # fmt: skip
    assert torch.equal(next(share.epoch(2))[0], whole[2:5])
    if choice != "none":
        order = torch.arange(200)
        first, second = (
            augment.draw(order, torch.Generator().manual_seed(derive_seed(7, epoch)), epoch, 7) for epoch in (0, 1)
        )
        assert not torch.equal(first, second)
        images = photographs(200, 32, 32)
        changed = augment.apply(images, first)
        assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
        assert (changed != images).flatten(1).any(1).float().mean() > 0.5


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("choice", CHOICES)
def test_no_batch_reads_a_value_for_which_a_gpu_would_have_to_be_waited_for(
    compose: Compose, choice: str, mix: str
) -> None:
    """Tensors on the device "meta" have none."""
    cfg = compose(f"augment={choice}", f"mix={mix}")
    images, labels = photographs(23, 32, 32).to("meta"), torch.arange(23, device="meta")
    options: dict[str, Any] = {"batch_size": 10, "mean": [0.5] * 3, "std": [0.25] * 3, "shuffle": True}
    loader = Loader(images, labels, augment=create(cfg.augment), mix=create(cfg.mix), num_classes=23, **options)
    assert [len(inputs) for inputs, _ in loader.epoch(0)] == [10, 10, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("choice", CHOICES)
def test_a_gpu_makes_the_same_images(compose: Compose, choice: str) -> None:
    augment, images = create(compose(f"augment={choice}").augment), photographs(300, 32, 32)
    choices = augment.draw(torch.arange(300), torch.Generator().manual_seed(0))
    assert torch.equal(augment.apply(images.cuda(), choices.cuda()).cpu(), augment.apply(images, choices))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "augment.parts=[] is not possible: it takes a list with at least one part."),
        (None, "augment.parts=None is not possible"),
        ({"a": CropFlip()}, "augment.parts={'a': CropFlip(padding=4, flip=True)} is not possible"),
        (
            [CropFlip(), {"padding": 3}],
            "augment.parts[1]={'padding': 3} is not possible: it takes what has a _target_ ",
        ),
    ],
)
def test_what_is_no_list_of_parts_is_refused(parts: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Pipeline(parts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augment=cutout", "augment.parts.1.size=0"], "augment.size=0 is not possible: it takes a whole number of "
         "pixels from 1 to 10,000. (cifar.data.augment.erasing.Cutout)"),
        (["augment=cutout", "+augment.parts.1.sise=3"], "There is no key 'augment.parts.1.sise'. Did you mean 'size'?"),
        (["augment=trivial", "augment.parts=[{_target_:mine}]"], "Error locating target 'mine'"),
        (["augment._target_=cifar.data.augment.CropFlip"], "augment._target_=cifar.data.augment.CropFlip has another "
         "name now: cifar.data.augment.crops.CropFlip."),
    ],
)  # fmt: skip
def test_a_mistake_in_a_part_names_it(compose: Compose, words: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        create(compose(*words).augment)
    assert str(error.value).startswith(message)

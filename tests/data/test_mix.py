"""Mixtures against torchvision's, given the same share or rectangle; what is drawn; the loader's pairs and labels."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor
from torchvision.transforms import v2

from cifar.base.errors import UserError
from cifar.data.augment.crops import CropFlip
from cifar.data.loader import Loader
from cifar.data.mix import UNIT, Cutmix, Mix, Mixup, OneOf, Unmixed, mixed_labels
from cifar.training.distributed import Ranks

MIXES: dict[str, Mix] = {
    "mixup": Mixup(0.4), "cutmix": Cutmix(1.0, 1.0), "both": OneOf([Mixup(1.0, 0.7), Cutmix(0.5, 0.7)]),
}  # fmt: skip


def draw(mix: Mix, num_batches: int, seed: int = 0) -> Tensor:
    return mix.draw(num_batches, torch.Generator().manual_seed(seed))


def batch(num_images: int = 6, height: int = 32, width: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_images, 3, height, width, generator=generator), torch.arange(num_images) % 5


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_is_torchvisions_at_the_same_share(alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    (inputs, labels), theirs = batch(), v2.MixUp(alpha=alpha, num_classes=5)
    for choices in draw(Mixup(alpha), 20).tolist():
        found, share = Mixup(alpha).apply(inputs, inputs.roll(1, 0), choices)
        monkeypatch.setattr(theirs, "make_params", lambda flat_inputs, share=share: {"lam": share})
        expected, expected_labels = theirs(inputs, labels)
        assert torch.equal(found, expected)
        assert torch.equal(mixed_labels(labels, labels.roll(1, 0), share, 5), expected_labels)


@pytest.mark.parametrize("size", [(32, 32), (20, 48)], ids=str)
def test_cutmix_is_torchvisions_at_the_same_area_and_centre(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (inputs, labels), theirs, mix = batch(6, *size), v2.CutMix(num_classes=5), Cutmix(1.0, 1.0)
    areas = []
    for choices in draw(mix, 200).tolist():
        centre = iter((choices[2], choices[1]))  # torchvision draws the column first
        monkeypatch.setattr(theirs._dist, "sample", lambda shape, choices=choices: torch.tensor(choices[0] / UNIT))
        monkeypatch.setattr(torch, "randint", lambda most, size, centre=centre: torch.tensor([next(centre) % most]))
        expected, expected_labels = theirs(inputs, labels)
        monkeypatch.undo()
        found, share = mix.apply(inputs, inputs.roll(1, 0), choices)
        assert torch.equal(found, expected)
        assert torch.equal(mixed_labels(labels, labels.roll(1, 0), share, 5), expected_labels)
        changed = (found != inputs).any(1)[0]
        assert 1 - share == pytest.approx(float(changed.float().mean()))
        areas.append(1 - share)
    assert len({*areas}) > 50


@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("make", [Mixup, Cutmix])
def test_shares_are_betas_with_the_probability(make: Callable[..., Mix], alpha: float) -> None:
    always = draw(make(alpha, 1.0), 4000)[:, 0].double() / UNIT
    assert kstest(always, beta(alpha, alpha).cdf).pvalue > 0.001
    assert kstest(always, beta(2 * alpha, alpha).cdf).pvalue < 0.001  # so the comparison can fail
    sometimes = draw(make(alpha, 0.3), 4000)[:, 0]
    assert int((sometimes == UNIT).sum()) == pytest.approx(2800, abs=5 * math.sqrt(4000 * 0.3 * 0.7))
    assert (draw(make(alpha, 0.0), 100)[:, 0] == UNIT).all()


def test_a_batch_that_is_not_mixed_is_as_it_was() -> None:
    inputs, _ = batch()
    for mix, choices in ((Mixup(), [UNIT]), (Cutmix(), [UNIT, 7, 9])):
        found, share = mix.apply(inputs, inputs.roll(1, 0), choices)
        assert torch.equal(found, inputs)
        assert share == 1


def test_one_of_several_is_each_as_often_and_gets_its_own_choices() -> None:
    mix = OneOf([Mixup(0.5), Cutmix(1.0, 1.0)])
    choices = draw(mix, 4000)
    assert int(choices[:, 0].sum()) == pytest.approx(2000, abs=5 * math.sqrt(1000))
    inputs, _ = batch()
    for row in choices[:20].tolist():
        alone: Mix = Cutmix(1.0, 1.0) if row[0] else Mixup(0.5)
        expected = alone.apply(inputs, inputs.roll(1, 0), row[2:] if row[0] else row[1:2])
        found = mix.apply(inputs, inputs.roll(1, 0), row)
        assert torch.equal(found[0], expected[0])
        assert found[1] == expected[1]


def loader(mix: Mix | None, num_images: int = 23, share: Callable[[int], Tensor] | None = None, **more: Any) -> Loader:
    images = torch.randint(0, 256, (num_images, 3, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    options: dict[str, Any] = {"batch_size": 8, "mean": [0.5] * 3, "std": [0.25] * 3, "shuffle": True, "seed": 3}
    options |= {"augment": CropFlip(1), "num_classes": 23, **more}
    return Loader(images, torch.arange(num_images), mix=mix, share=share, **options)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", MIXES)
def test_the_loader_mixes_each_image_with_the_one_before_it(name: str, channels_last: bool) -> None:
    mix = MIXES[name]
    plain = [*loader(None, channels_last=channels_last).epoch(2)]
    mixed = [*loader(mix, channels_last=channels_last).epoch(2)]
    shares = []
    for (inputs, labels), (found, found_labels) in zip(plain, mixed, strict=True):
        assert found_labels.shape == (len(labels), 23)
        (share,) = {round(float(row[label]), 6) for row, label in zip(found_labels, labels, strict=True)}
        partners = labels.roll(1)
        expected = torch.zeros(len(labels), 23).index_put_((torch.arange(len(labels)), labels), torch.tensor(share))
        expected[torch.arange(len(labels)), partners] += 1 - share
        torch.testing.assert_close(found_labels, expected, atol=1e-6, rtol=0)
        shares.append(share)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        assert found.is_contiguous(memory_format=memory_format)
        if name == "mixup":
            torch.testing.assert_close(found, share * inputs + (1 - share) * inputs.roll(1, 0), atol=1e-5, rtol=0)
        elif name == "cutmix":
            assert torch.equal((found == inputs) | (found == inputs.roll(1, 0)), torch.ones_like(found).bool())
    assert len({*shares}) > 1


@pytest.mark.parametrize("name", MIXES)
def test_mixtures_depend_on_seed_and_epoch_alone_and_leave_order_and_crops_alone(name: str) -> None:
    whole = [*loader(MIXES[name]).epoch(4)]
    torch.manual_seed(9)
    for start in range(3):
        for (inputs, labels), (same, same_labels) in zip(
            whole[start:], loader(MIXES[name]).epoch(4, start), strict=True
        ):
            assert torch.equal(inputs, same)
            assert torch.equal(labels, same_labels)
    assert not torch.equal(whole[0][1], next(loader(MIXES[name]).epoch(5))[1])
    assert not torch.equal(whole[0][1], next(loader(MIXES[name], seed=4).epoch(4))[1])
    never = [*loader(Mixup(1.0, 0.0)).epoch(4)]
    for (inputs, labels), (same, same_labels) in zip(loader(None).epoch(4), never, strict=True):
        assert torch.equal(inputs, same)
        assert torch.equal(torch.nn.functional.one_hot(labels, 23).float(), same_labels)


@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("name", MIXES)
def test_several_ranks_train_on_the_mixtures_of_one(name: str, count: int, num_parts: int) -> None:
    """Also in the last batch of seven, of which a rank may have one image."""
    whole = [*loader(MIXES[name]).epoch(1)]
    for rank in range(count):
        ranks = Ranks(rank, count)
        shared = loader(MIXES[name], share=partial(ranks.places, num_parts=num_parts)).epoch(1)
        for (inputs, labels), (part, part_labels) in zip(whole, shared, strict=True):
            places = ranks.places(len(inputs), num_parts)
            assert torch.equal(part, inputs[places])
            assert torch.equal(part_labels, labels[places])


def test_a_rank_without_images_of_a_batch_gets_an_empty_one() -> None:
    *_, (inputs, labels) = loader(Mixup(), num_images=10, share=Ranks(2, 3).places, num_classes=10).epoch(0)
    assert (inputs.shape, labels.shape) == ((0, 3, 8, 8), (0, 10))


def test_what_is_not_mixed_keeps_its_labels() -> None:
    _, labels = next(loader(Unmixed()).epoch(0))
    assert (labels.dtype, labels.shape) == (torch.int64, (8,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixup(0), "mix.alpha=0 is not possible: it takes a number from 0.001 to 1000."),
        (lambda: Cutmix(1.0, 1.1), "mix.probability=1.1 is not possible: it takes a number from 0 to 1."),
        (lambda: OneOf([]), "mix.parts=[] is not possible: it takes a list with at least one part."),
        (lambda: OneOf([Mixup(), 3]), "mix.parts[1]=3 is not possible"),  # type: ignore[list-item]
    ],
)
def test_impossible_values_are_refused(make: Callable[[], Mix], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        make()

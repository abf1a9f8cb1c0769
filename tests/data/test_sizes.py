"""Smaller images first: which batches have which size, how they are made smaller, and what no run can use."""

import copy
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cifar.base.errors import UserError
from cifar.data.mix import Cutmix
from cifar.data.sizes import SizeSchedule, resized
from cifar.experiment.building import build_parts
from cifar.experiment.loaders import build_loaders
from cifar.experiment.run import new_trainer, run
from cifar.tracking.tracking import RunInfo
from cifar.training.devices.device import Device
from cifar.training.warm_up import warm_up
from tests.conftest import QUIET, Compose, read_metrics
from tests.data.test_loader import make_loader
from tests.experiment.test_choices import trained
from tests.experiment.test_restore import assert_identical


@pytest.mark.parametrize(
    ("sizes", "epochs", "num_batches", "expected"),
    [
        ([24, 32], 4, 1, [24, 24, 32, 32]),
        ([24, 32], 2, 2, [24, 24, 32, 32]),
        ([24, 32], 1, 4, [24, 24, 32, 32]),
        ([24, 32], 1, 5, [24, 24, 32, 32, 32]),
        ([16, 24, 32], 7, 1, [16, 16, 24, 24, 32, 32, 32]),
        ([16, 24, 32], 2, 1, [24, 32]),
        ([16, 24, 32], 1, 1, [32]),
        ([24, 24, 32], 1, 3, [24, 24, 32]),
        ([24], 1, 3, [24, 24, 24]),
        ([], 1, 3, [None, None, None]),
    ],
)
def test_every_size_has_its_share_of_the_steps_and_the_last_ends_them(
    sizes: list[int], epochs: int, num_batches: int, expected: list[int | None]
) -> None:
    schedule = SizeSchedule(sizes, epochs)
    places = product(range(epochs), range(num_batches))
    assert [schedule.at(epoch, index, num_batches) for epoch, index in places] == expected
    assert schedule.at(epochs + 5, 0, num_batches) == expected[-1]


def test_a_run_without_epochs_has_the_last_size() -> None:
    assert SizeSchedule([24, 32], 0).at(0) == 32


def noise(num_images: int = 4, size: int = 32) -> Tensor:
    """Return images of noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [8, 20, 24, 31])
def test_images_are_made_smaller_as_pillow_does(size: int) -> None:
    images = noise()
    smaller = resized(images, size)
    assert smaller.shape == (4, 3, size, size)
    assert smaller.dtype == torch.uint8
    for image, found in zip(images, smaller, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BILINEAR)
        difference = np.array(picture).astype(int) - found.permute(1, 2, 0).numpy()
        assert abs(difference).max() <= 1


def test_other_devices_differ_by_one_at_most() -> None:
    images = noise()

    class Elsewhere(torch.Tensor):
        """A tensor that says that it lies on a GPU."""

        device = torch.device("cuda")

    here = resized(images, 24)
    there = resized(images.as_subclass(Elsewhere), 24).as_subclass(Tensor)
    assert there.dtype == torch.uint8
    assert (here.int() - there.int()).abs().max() <= 1


def test_a_size_that_the_images_have_leaves_them_as_they_are() -> None:
    images = noise()
    assert resized(images, 32) is images
    assert resized(images, None) is images


def test_batches_of_an_epoch_have_its_size_also_from_the_middle_and_when_they_are_mixed() -> None:
    plain = make_loader(shuffle=True)
    mixing: dict[str, Any] = {"mix": Cutmix(probability=1), "num_classes": 25}
    for options in ({}, mixing):
        loader = make_loader(shuffle=True, sizes=SizeSchedule([24, 32], 2), **options)
        assert {tuple(inputs.shape[2:]) for inputs, _ in loader.epoch(0)} == {(24, 24)}
        assert {tuple(inputs.shape[2:]) for inputs, _ in loader.epoch(1)} == {(32, 32)}
        whole, rest = [*loader.epoch(0)], [*loader.epoch(0, start=1)]
        assert all(torch.equal(one[0], other[0]) for one, other in zip(whole[1:], rest, strict=True))
    loader = make_loader(shuffle=True, sizes=SizeSchedule([24, 32], 1))
    sizes = [inputs.shape[2] for inputs, _ in loader.epoch(0)]
    assert (sizes[0], sizes[-1], sorted(sizes)) == (24, 32, sizes)
    loader = make_loader(shuffle=True, sizes=SizeSchedule([24, 32], 2))
    for (small, labels), (_, others) in zip(loader.epoch(0), plain.epoch(0), strict=True):
        assert torch.equal(labels, others)
        assert small.shape[0] == len(labels)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(loader.epoch(1), plain.epoch(1), strict=True))


WORDS = [*QUIET, "data.limit=6", "data.val_size=10", "data.test_limit=2", "batch_size=2", "epochs=2"]


def test_a_run_cut_among_small_images_goes_on_to_the_last_bit(compose: Compose) -> None:
    cfg = compose(*WORDS, "data.size_schedule=[24,32]")
    first, last = trained(cfg)
    _, resumed = trained(cfg, copy.deepcopy(first))
    assert_identical(last, resumed)
    _, plain = trained(compose(*WORDS))
    with pytest.raises(AssertionError):
        assert_identical(last, plain)


def test_training_sees_small_images_and_evaluation_never_does(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    forward = torch.nn.Sequential.forward

    def spy(self: torch.nn.Sequential, inputs: Any) -> Any:
        if inputs.dim() == 4 and inputs.shape[1] == 3:
            seen.append((self.training, inputs.shape[2]))
        return forward(self, inputs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(torch.nn.Sequential, "forward", spy)
    run(compose(*WORDS, "data.size_schedule=[24,32]"), tmp_path)
    assert [size for is_training, size in seen if is_training] == [24] * 3 + [32] * 3
    sizes = [size for is_training, size in seen if not is_training]
    assert sizes.count(24) == 1  # the first look at whether the model can take them
    assert {*sizes} == {24, 32}
    assert read_metrics(tmp_path)


def test_every_size_is_prepared_before_the_first_step(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose(*WORDS, "data.size_schedule=[24,32]", "data.limit=7", "batch_size=4")
    parts = build_parts(cfg, RunInfo("run", None, {}))
    loaders = build_loaders(cfg, parts)
    trainer = new_trainer(cfg, parts, loaders)
    shapes: list[tuple[int, int]] = []
    monkeypatch.setattr(Device, "needs_warm_up", True)

    def spy(inputs: Tensor, labels: Tensor, num_images: int) -> float:
        shapes.append((len(labels), inputs.shape[2]))
        return 0.0

    monkeypatch.setattr(trainer.train_step, "warm_up", spy)
    warm_up(trainer, loaders.test, "none")
    assert shapes == [(4, 24), (3, 24), (4, 32), (3, 32)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_makes_the_same_images_smaller() -> None:
    images = noise()
    here, there = resized(images, 24), resized(images.cuda(), 24)
    assert there.device.type == "cuda"
    assert (here.int() - there.cpu().int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.size_schedule=[40]"], "images of 32×32 pixels can be made smaller, to the sides of squares."),
        (
            ["data.size_schedule=[24,5]", "model=speednet", "model.widths=[4,4,4]"],
            "data.size_schedule=[24, 5] makes images of 5×5 pixels, and model._target_=cifar.models.speednet.speednet "
            "can't take these",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_the_first_step(
    tmp_path: Path, compose: Compose, words: list[str], message: str
) -> None:
    given = [word for word in WORDS if not word.startswith("model.") or "model" not in words[-1]]
    with pytest.raises(UserError, match=re.escape(message)):
        run(compose(*given, *words), tmp_path)

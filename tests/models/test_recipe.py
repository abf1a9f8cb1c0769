"""What the fast recipe is made of: images that the whitening sees, small constants, the values of its experiments."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from cifar.base.sealed import read_checkpoint
from cifar.data.loader import Loader
from cifar.experiment.run import fit_to_images, run
from cifar.models.speednet import Norm, Whitening, speednet
from tests.conftest import QUIET, Compose


class Fitted(nn.Module):
    """A model that keeps the images that it is fitted to."""

    def fit_to(self, images: Tensor) -> None:
        self.images = images


def test_a_model_is_fitted_to_the_first_5000_normalised_images() -> None:
    images = torch.randint(0, 256, (5100, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loader = Loader(
        images, torch.zeros(5100, dtype=torch.int64), batch_size=10, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2.0],
        shuffle=True,
    )  # fmt: skip
    model = Fitted()
    fit_to_images(model, loader)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(model.images, (images[:5000] / 255 - mean) / std)


def test_whitening_adds_a_small_constant_to_the_variances() -> None:
    torch.manual_seed(0)
    images = 0.03 * torch.randn(100, 3, 16, 16)  # variances of about 9e-4, so that the constant counts
    layer = Whitening(3)
    layer.fit(images)
    patches = nn.functional.unfold(images, 2).transpose(1, 2).reshape(-1, 12).double()
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches))
    outputs = patches @ layer.weight.detach()[:12].reshape(12, 12).T.double()
    covariance = outputs.T @ outputs / len(outputs)
    torch.testing.assert_close(covariance, torch.diag(variances / (variances + 5e-4)), rtol=0, atol=1e-4)


def test_weights_of_init_from_are_not_fitted_again(tmp_path: Path, compose: Compose) -> None:
    torch.manual_seed(0)
    first = speednet(widths=(8, 8, 8))
    first.fit_to(torch.randn(20, 3, 32, 32))
    torch.save(first.state_dict(), tmp_path / "first.pt")
    words = [word for word in QUIET if "_target_" not in word] + ["model=speednet", "model.widths=[8,8,8]"]
    fitted = []
    for number, more in enumerate([[], [f"init_from={tmp_path / 'first.pt'}"]]):
        (folder := tmp_path / str(number)).mkdir()
        run(compose(*words, "epochs=1", "optimizer=sgd", *more), folder)
        fitted.append(read_checkpoint(folder / "checkpoint.pt")["model"]["whitening.weight"])
    assert torch.equal(fitted[1], first.whitening.weight)
    assert not torch.equal(fitted[0], first.whitening.weight)


def test_speednets_batch_norm_adds_next_to_nothing_to_the_variance() -> None:
    norms = [module for module in speednet().modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(type(norm), norm.eps) for norm in norms] == [(Norm, 1e-12)] * 6
    inputs = 1e-3 * torch.randn(64, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = Norm(5, momentum=0.4)(inputs)
    torch.testing.assert_close(outputs.var((0, 2, 3), correction=0), torch.ones(5), rtol=1e-4, atol=0)


ALL: dict[str, Any] = {
    "label_smoothing": 0.2,
    "lr": 0.24,
    "optimizer.momentum": 0.6,
    "optimizer.weight_decay": 0.0,
    "optimizer.iterations": 3,
    "optimizer.normalise": True,
    "optimizer.others.momentum": 0.85,
    "optimizer.others.weight_decay": 3.8e-5,
    "model.scale": None,
    "model.norm_momentum": 0.4,
    "schedule.warmup_epochs": 0,
    "schedule.final_factor": 0.0,
    "device.precision": "bf16_or_fp32",
}
WIDTHS = [64, 256, 256]
RECIPES: dict[str, dict[str, Any]] = {
    "speedrun86": {"epochs": 1, "batch_size": 500, "tta": "mirror", "model.widths": WIDTHS, "augment.shift": 2,
                   "augment.cutout": 0, "data.size_schedule": None},
    "speedrun90": {"epochs": 2, "batch_size": 500, "tta": "mirror_translate", "model.widths": WIDTHS,
                   "augment.shift": 2, "augment.cutout": 0, "data.size_schedule": None},
    "speedrun94": {"epochs": 14, "batch_size": 2000, "tta": "mirror_translate", "model.widths": WIDTHS,
                   "augment.shift": 2, "augment.cutout": 0, "data.size_schedule": [24, 32]},
    "speedrun96": {"epochs": 40, "batch_size": 1000, "tta": "mirror_translate", "model.widths": [128, 512, 512],
                   "augment.shift": 4, "augment.cutout": 12, "data.size_schedule": None},
}  # fmt: skip
FREE_EPOCHS = {
    "speedrun86": 3,
    "speedrun90": 1,
    "speedrun94": 3,
    "speedrun96": 3,
}  # of whitening's bias


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_are_what_their_results_were_measured_with(name: str, compose: Compose) -> None:
    cfg = compose(f"experiment={name}")
    expected = ALL | RECIPES[name]
    assert {key: OmegaConf.select(cfg, key) for key in expected} == expected
    batch_size = RECIPES[name]["batch_size"]
    assert cfg.optimizer.others.lr == 0.053 * batch_size
    assert OmegaConf.to_container(cfg.optimizer.groups, resolve=True) == [
        {"names": r"head\.weight", "lr": 0.67 * batch_size, "weight_decay": 3.0e-6},
        {"names": r"whitening\.bias", "epochs": FREE_EPOCHS[name]},
    ]

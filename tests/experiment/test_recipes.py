"""The recipes of 200 epochs are the field's: what their heads say is what they compose to."""

from collections.abc import Callable

import pytest
from torch import nn

from cifar.experiment.config import resolve
from cifar.models.preact_resnet import wide_resnet
from cifar.models.resnet_he import resnet18
from cifar.models.vgg import vgg16_bn
from tests.conftest import ROOT, Compose

RECIPES: dict[str, tuple[Callable[..., nn.Module], float]] = {
    "resnet18_200": (resnet18, 0.1),
    "resnet18_strong": (resnet18, 0.1),
    "vgg16_bn_200": (vgg16_bn, 0.05),
    "wrn28_10_200": (wide_resnet, 0.1),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_sgd_over_200_epochs_of_cifar10(compose: Compose, name: str) -> None:
    model, lr = RECIPES[name]
    cfg = resolve(compose(f"experiment={name}"))
    assert cfg["model"]["_target_"] == f"{model.__module__}.{model.__qualname__}"
    assert cfg["optimizer"]["_target_"] == "torch.optim.SGD"
    values = [cfg["optimizer"][key] for key in ("lr", "momentum", "nesterov", "weight_decay")]
    assert values == [lr, 0.9, True, 5e-4]
    assert (cfg["epochs"], cfg["batch_size"], cfg["label_smoothing"]) == (200, 128, 0)
    assert cfg["schedule"] == {
        "_target_": "cifar.training.schedules.Cosine", "warmup_epochs": 0, "final_factor": 0.0,
    }  # fmt: skip
    assert cfg["data"]["source"]["_target_"].endswith("CIFAR10")
    assert f"cifar run experiment={name} device=cuda" in (ROOT / "docs" / "gpu.md").read_text()


def test_the_strong_recipe_adds_trivial_augment_cutout_and_an_average_to_the_reference(compose: Compose) -> None:
    plain, strong = (resolve(compose(f"experiment={name}")) for name in ("resnet18_200", "resnet18_strong"))
    assert {key for key in plain if plain[key] != strong[key]} == {"augment", "average"}
    kinds = [part["_target_"].rpartition(".")[2] for part in strong["augment"]["parts"]]
    assert kinds == ["CropFlip", "TrivialAugment", "Cutout"]
    assert strong["average"]["_target_"].endswith(".EMA")
    assert strong["average"]["result"] == "averaged"
    plain_kinds = plain["augment"]["_target_"].rpartition(".")[2]
    assert plain_kinds == "CropFlip"


def test_wrn_is_that_of_the_paper(compose: Compose) -> None:
    model = resolve(compose("experiment=wrn28_10_200"))["model"]
    assert (model["depth"], model["width"], model["dropout"]) == (28, 10, 0.0)

"""The fast network: whitening, partial identities, frozen weights, shapes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cifar.base.errors import UserError
from cifar.models.resnet import resnet50
from cifar.models.resnet_he import resnet18
from cifar.models.speednet import Norm, Whitening, convolution, speednet
from cifar.models.vgg import vgg16


def test_whitened_patches_have_no_correlation_and_come_in_both_signs() -> None:
    torch.manual_seed(0)
    mixing = torch.randn(3, 3)
    images = torch.einsum("ij,njhw->nihw", mixing, torch.randn(200, 3, 32, 32))
    layer = Whitening(3)
    layer.fit(images, eps=0.0)
    outputs = layer(images).detach().transpose(0, 1).flatten(1)
    covariance = outputs[:12] @ outputs[:12].T / outputs.shape[1]
    torch.testing.assert_close(covariance, torch.eye(12), rtol=0, atol=1e-3)
    torch.testing.assert_close(outputs[12:], -outputs[:12])
    assert not layer.weight.requires_grad
    assert layer.bias is not None
    assert layer.bias.requires_grad


def test_a_convolution_begins_as_a_partial_identity() -> None:
    layer = convolution(4, 6)
    inputs = torch.randn(2, 4, 8, 8)
    assert torch.equal(layer(inputs)[:, :4], inputs)
    assert layer.weight[4:].abs().sum() > 0


def test_shapes_scale_and_what_is_learnt() -> None:
    model = speednet(widths=(8, 16, 12), num_classes=7)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert model.scale == 1 / 12
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    norms = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Norm)]
    assert len(norms) == 6
    assert sorted(frozen) == sorted(["whitening.weight", *norms])
    assert sum(weight.numel() for weight in speednet().parameters()) == 1_972_792


def test_the_network_is_fitted_to_the_images_that_it_is_given() -> None:
    torch.manual_seed(0)
    model, other = speednet(widths=(8, 8, 8)), Whitening(3)
    images = torch.randn(20, 3, 32, 32)
    model.fit_to(images)
    other.fit(images)
    assert torch.equal(model.whitening.weight, other.weight)
    assert isinstance(model.head, nn.Linear)


@pytest.mark.parametrize(
    "widths", [[], [8, 8], [8, 0, 8], [8, 8, 8, 8], [8, 8.0, 8], [8, True, 8], [8, 8, 10**20], "888"]
)
def test_impossible_widths_are_refused(widths: list[int]) -> None:
    with pytest.raises(UserError, match=r"^model\.widths=.* it takes three whole numbers of channels"):
        speednet(widths=widths)


@pytest.mark.parametrize(
    "values",
    [{"num_classes": 0}, {"num_classes": 2.0}, {"num_classes": True}, {"scale": 0}, {"scale": math.inf},
     {"scale": True}, {"norm_momentum": 0}, {"norm_momentum": 1.5}, {"norm_momentum": math.nan}],
)  # fmt: skip
def test_impossible_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^model\.\w+=.* is not possible: it takes a"):
        speednet(**values)


@pytest.mark.parametrize("build", [resnet18, resnet50, vgg16])
def test_every_model_checks_the_number_of_classes(build: Callable[..., nn.Module]) -> None:
    for value in (0, -1, 2.5, True, None, "ten", 10**12):
        with pytest.raises(
            UserError, match=r"^model\.num_classes=.* it takes a whole number of classes from 1 to 1,000,000"
        ):
            build(num_classes=value)

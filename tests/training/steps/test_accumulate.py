"""`accumulate` on shipped models, in float64: equal to the whole batch up to rounding only without batch norm."""

import copy

import pytest
import torch
from torch import Tensor, nn, optim

from cifar.models.resnet import resnet50
from cifar.models.resnet_he import resnet18
from cifar.models.speednet import speednet
from cifar.models.vgg import vgg16
from cifar.training.devices.device import Device
from cifar.training.devices.memory import has_batch_norm, ways_out
from cifar.training.steps.step import TrainingStep
from tests.conftest import ROOT

CPU = Device(torch.device("cpu"), "fp32")


def gradient(model: nn.Module, accumulate: int) -> Tensor:
    """Return the gradient of a batch of four that goes through a copy of the model in parts."""
    model = copy.deepcopy(model)
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    step = TrainingStep(model, optim.SGD(model.parameters(), lr=0.1), CPU, accumulate=accumulate)
    step.compute_gradient(inputs, torch.arange(4), 4)
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def build(with_batch_norm: bool) -> nn.Module:
    """Return the shipped ResNet50, in float64, or what it is without its batch norms."""
    torch.manual_seed(0)
    model = resnet50()
    if not with_batch_norm:
        for module in model.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.Identity())
    return model.double()


def test_parts_of_a_batch_are_another_experiment_with_batch_norm_and_the_same_without() -> None:
    for with_batch_norm in (True, False):
        model = build(with_batch_norm)
        assert has_batch_norm(model) == with_batch_norm
        whole, in_parts = gradient(model, 1), gradient(model, 2)
        difference = float((in_parts - whole).norm() / whole.norm())
        if with_batch_norm:
            assert difference > 0.5
        else:
            assert difference < 1e-12


@pytest.mark.parametrize("model", [resnet18, resnet50, speednet, vgg16])
def test_what_is_offered_when_memory_lacks_is_true_of_the_model(model: type[nn.Module]) -> None:
    """The documentation says that every shipped model has batch norm."""
    fast = Device(torch.device("cpu"), "fp32", fast_conv=True)
    with_norm = (
        "accumulate=4, whose batch norm averages over each part, or a smaller batch_size, both of which are another "
        "experiment"
    )
    assert ways_out(model(), CPU, 2) == with_norm
    assert ways_out(model(), fast, 2).startswith(
        "device.fast_conv=false, for the same result up to rounding in a little"
    )
    assert ways_out(model(), fast, 2).endswith(with_norm)
    without = ways_out(nn.Linear(2, 2), fast, 1)
    assert without.startswith("accumulate=2, for the same result up to rounding in about half the memory")


def test_no_text_promises_that_accumulate_changes_nothing() -> None:
    for path in (ROOT / "docs" / "configuration.md", ROOT / "conf" / "config.yaml"):
        lines = path.read_text().splitlines()
        about = [" ".join(lines[number : number + 4]) for number, line in enumerate(lines) if "accumulate=" in line]
        assert about
        assert all("batch norm" in text for text in about)

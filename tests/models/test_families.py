"""The field's models: parameters as published, equal to torchvision's where that has them, able to learn by heart."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from cifar.base.errors import UserError
from cifar.base.paths import CONF
from cifar.models.convmixer import convmixer
from cifar.models.densenet import densenet_bc
from cifar.models.preact_resnet import PreactBlock, preact_resnet18, wide_resnet
from cifar.models.resnet_he import resnet34, resnet50_he
from cifar.models.vgg import vgg16_bn

CHOICES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def build(choice: str, num_classes: int = 10) -> nn.Module:
    cfg = OmegaConf.load(CONF / "model" / f"{choice}.yaml")
    model: nn.Module = instantiate(
        OmegaConf.merge({"data": {"num_classes": num_classes}, "model": cfg}).model, _convert_="all"
    )
    return model


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (lambda: resnet34(), 21_282_122),
        (lambda: resnet50_he(), 23_520_842),
        (lambda: preact_resnet18(), 11_171_146 + 2 * 512),  # counted without the batch norm after the last block
        (lambda: wide_resnet(28, 10), 36_479_194),  # the paper: 36.5 million
        (lambda: wide_resnet(16, 8), 10_961_370),  # 11.0 million
        (lambda: wide_resnet(40, 4), 8_949_210),  # 8.9 million
        (lambda: wide_resnet(16, 8, dropout=0.3), 10_961_370),
        (lambda: vgg16_bn(), 14_728_266),
        (lambda: densenet_bc(100, 12), 769_162),  # 0.8 million
        (lambda: densenet_bc(190, 40), 25_624_430),  # 25.6 million
        (lambda: convmixer(256, 8, 5, 2), 594_186),  # "0.6 million"
    ],
)
def test_parameters_are_those_that_others_count(model: Callable[[], nn.Module], published: int) -> None:
    with torch.device("meta"):
        assert num_parameters(model()) == published


@pytest.mark.parametrize("choice", CHOICES)
def test_every_model_follows_the_number_of_classes(choice: str) -> None:
    with torch.device("meta"):
        ten, hundred = build(choice), build(choice, num_classes=100)
    assert ten.eval()(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)
    assert hundred.eval()(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 100)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(resnet34, torchvision.models.resnet34), (resnet50_he, torchvision.models.resnet50)],
)
def test_resnets_are_torchvisions_with_the_stem_for_small_images(
    ours: Callable[[], nn.Module], theirs: Callable[..., nn.Module]
) -> None:
    torch.manual_seed(0)
    model, other = ours().eval(), theirs(num_classes=10).eval()
    other.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    other.maxpool = nn.Identity()
    values = [*model.state_dict().values()]
    assert [value.shape for value in values] == [value.shape for value in other.state_dict().values()]
    other.load_state_dict(dict(zip(other.state_dict(), values, strict=True)))
    inputs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(inputs), other(inputs))


def test_vgg16_bn_is_torchvisions_features_with_one_linear_layer() -> None:
    torch.manual_seed(0)
    model, features = vgg16_bn().eval(), torchvision.models.vgg16_bn().features.eval()
    values = [*model.state_dict().values()][:-2]
    features.load_state_dict(dict(zip(features.state_dict(), values, strict=True)))
    inputs = torch.randn(2, 3, 32, 32)
    linear = model[-1]
    torch.testing.assert_close(model(inputs), linear(features(inputs).flatten(1)))


def test_densenet_is_torchvisions_with_the_stem_for_small_images() -> None:
    torch.manual_seed(0)
    model = densenet_bc(28, 6).eval()
    other = torchvision.models.DenseNet(6, (4, 4, 4), 12, bn_size=4, num_classes=10).eval()
    features = other.features
    features.conv0, features.norm0 = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.Identity()
    features.relu0 = features.pool0 = nn.Identity()
    values = [*model.state_dict().values()]
    assert [value.shape for value in values] == [value.shape for value in other.state_dict().values()]
    other.load_state_dict(dict(zip(other.state_dict(), values, strict=True)))
    inputs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(inputs), other(inputs))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_preactivation_block_is_the_papers_formula(stride: int) -> None:
    torch.manual_seed(0)
    block = PreactBlock(4, 4 * stride, stride).eval()
    inputs = torch.randn(2, 4, 8, 8)
    weights = {name: value for name, value in block.state_dict().items() if value.dim() == 4}
    activated = F.relu(block.activation[0](inputs))
    middle = F.relu(block.second[0](F.conv2d(activated, weights["first.weight"], stride=stride, padding=1)))
    shortcut = inputs if stride == 1 else F.conv2d(activated, weights["shortcut.weight"], stride=stride)
    expected = shortcut + F.conv2d(middle, weights["second.2.weight"], padding=1)
    torch.testing.assert_close(block(inputs), expected)


def test_dropout_stands_between_the_two_convolutions_of_a_wide_block() -> None:
    block = PreactBlock(4, 4, 1, dropout=0.5)
    assert [type(layer) for layer in block.second] == [nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    assert not [module for module in wide_resnet(10, 1).modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: wide_resnet(27, 10), r"^model\.depth=27 is not possible: it takes 10, 16, 22, 28, "),
        (lambda: wide_resnet(4, 10), r"^model\.depth=4 is not possible"),
        (lambda: wide_resnet(28, 0), r"^model\.width=0 is not possible"),
        (lambda: wide_resnet(28, 10, dropout=1.0), r"^model\.dropout=1\.0 is not possible: .* less than 1"),
        (lambda: densenet_bc(99, 12), r"^model\.depth=99 is not possible"),
        (lambda: densenet_bc(100, -1), r"^model\.growth=-1 is not possible"),
        (lambda: convmixer(256, 8, 4, 2), r"^model\.kernel_size=4 is not possible: it takes an odd whole number"),
        (lambda: convmixer(256, 8, 5, 33), r"^model\.patch_size=33 is not possible"),
        (lambda: vgg16_bn(0), r"^model\.num_classes=0 is not possible"),
        (lambda: resnet34(True), r"^model\.num_classes=True is not possible"),
    ],
)
def test_what_cant_be_built_is_one_message(model: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model()


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_every_model_learns_64_images_by_heart(choice: str) -> None:
    torch.manual_seed(0)
    model = build(choice)
    inputs, labels = torch.randn(64, 3, 32, 32), torch.arange(64) % 10
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    lr = 3e-4 if choice == "vgg16" else 1e-3  # its convolutions have no batch norm
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(60):
        optimizer.zero_grad()
        logits = model(inputs)
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        if bool((logits.argmax(1) == labels).all()):
            return
    pytest.fail(f"{choice} has not learned 64 images in 60 steps")

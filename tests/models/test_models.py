"""The report's models: sizes, shapes after every layer, initial weights, structure."""

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cifar.models.resnet import Bottleneck, resnet50
from cifar.models.resnet_he import resnet18
from cifar.models.vgg import vgg16


def shapes_after(model: nn.Module, layers: dict[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return the output's shape, without the batch, of each of the layers for 32×32 images."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        return hook

    for name, layer in layers.items():
        layer.register_forward_hook(record(name))  # type: ignore[arg-type]
    model(torch.zeros(2, 3, 32, 32))
    return shapes


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts() -> None:
    assert num_parameters(resnet50()) == 14_750_730
    assert num_parameters(vgg16()) == 14_983_498
    assert num_parameters(resnet18()) == 11_173_962


@pytest.mark.parametrize(("build", "features"), [(resnet50, 1024), (vgg16, 512), (resnet18, 512)])
def test_num_classes_changes_only_the_last_layer(build: type, features: int) -> None:
    assert num_parameters(build(num_classes=10)) - num_parameters(build(num_classes=7)) == 3 * (features + 1)
    assert build(num_classes=7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_resnet18_is_torchvisions_with_the_stem_for_small_images() -> None:
    ours, theirs = resnet18(), torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    values = [*ours.state_dict().values()]
    assert [value.shape for value in values] == [value.shape for value in theirs.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    inputs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(inputs), theirs(inputs))


def test_resnet50_shape_after_each_layer() -> None:
    model = resnet50()
    blocks = {f"{name}.{index}": block for name in ("layer2", "layer3", "layer4")
              for index, block in enumerate(getattr(model, name))}  # fmt: skip
    layers = {"conv": model.layer1[0], "layer1": model.layer1, **blocks, "avgpool": model.avgpool, "fc": model.fc}
    assert shapes_after(model, layers) == {
        "conv": (64, 16, 16),
        "layer1": (64, 8, 8),
        "layer2.0": (256, 8, 8),
        "layer2.1": (256, 8, 8),
        "layer2.2": (256, 4, 4),
        "layer3.0": (512, 4, 4),
        "layer3.1": (512, 4, 4),
        "layer3.2": (512, 4, 4),
        "layer3.3": (512, 2, 2),
        **{f"layer4.{index}": (1024, 2, 2) for index in range(6)},
        "avgpool": (1024, 1, 1),
        "fc": (10,),
    }


def test_vgg16_shape_after_each_layer() -> None:
    model = vgg16()
    layers = {str(index): layer for index, layer in enumerate(model.features) if not isinstance(layer, nn.ReLU)}
    shapes = shapes_after(model, {**layers, "classifier": model.classifier})
    stages = [(64, 32, 2), (128, 16, 2), (256, 8, 3), (512, 4, 3), (512, 2, 3)]
    expected = []
    for channels, size, count in stages:
        expected += [(channels, size, size)] * count + [(channels, size // 2, size // 2)]
    assert [*shapes.values()] == [*expected, (10,)]
    kinds = [nn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in model.classifier] == kinds
    assert not [layer for layer in model.features if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize("downsample", [False, True])
def test_bottleneck_is_the_reports_block(downsample: bool) -> None:
    block = Bottleneck(8, 4, 16, downsample).eval()
    stride = 2 if downsample else 1
    convs = {name: module for name, module in block.named_modules() if isinstance(module, nn.Conv2d)}
    described = {name: (conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], conv.padding[0])
                 for name, conv in convs.items()}  # fmt: skip
    assert described == {
        "layer.0.0": (8, 4, 1, stride, 0),
        "layer.1.0": (4, 4, 3, 1, 1),
        "layer.2.0": (4, 16, 1, 1, 0),
        "shortcut.0": (8, 16, 1, stride, 0),
    }
    assert all(conv.bias is not None for conv in convs.values())
    for unit in (*block.layer, block.shortcut):
        assert isinstance(unit, nn.Sequential)
        assert [type(part) for part in unit] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    inputs = torch.randn(2, 8, 8, 8)
    assert torch.equal(block(inputs), block.layer(inputs) + block.shortcut(inputs))


def test_resnet50_weights_are_xavier_uniform() -> None:
    torch.manual_seed(0)
    for name, module in resnet50().named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert module.weight.abs().max() <= bound, name
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03), name


def test_vgg16_convolutions_are_normal_with_zero_bias() -> None:
    torch.manual_seed(0)
    for module in vgg16().features:
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * module.out_channels)), rel=0.05)
            assert module.weight.abs().max() > 3 * module.weight.std()  # not uniform
            assert module.bias is not None
            assert not module.bias.any()

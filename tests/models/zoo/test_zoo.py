"""timm's and torchvision's models, fitted to small images, against those written here; what is not known is refused."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cifar
from cifar.base.errors import UserError
from cifar.models.resnet_he import resnet18, resnet34, resnet50_he
from cifar.models.vgg import vgg16_bn
from cifar.models.zoo.timm_zoo import timm_model
from cifar.models.zoo.torchvision_zoo import torchvision_model
from tests.conftest import QUIET, read_summary

ZOOS: dict[str, Callable[..., nn.Module]] = {"timm": timm_model, "torchvision": torchvision_model}
OWN: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50_he, "vgg16_bn": vgg16_bn,
}  # fmt: skip


def build(zoo: str, name: str, **options: Any) -> nn.Module:
    values: dict[str, Any] = {"num_classes": 10, "pretrained": False, "stem": "cifar", "image_size": 32, "options": {}}
    return ZOOS[zoo](name, **(values | options))


def changes_of(model: nn.Module) -> list[str]:
    changes = model.changes
    assert isinstance(changes, list)
    return changes


SLOW = [("timm", "resnet34"), ("torchvision", "resnet34"), ("torchvision", "resnet50"), ("timm", "vgg16_bn")]
PAIRS = [pytest.param(zoo, name, marks=[pytest.mark.slow] * ((zoo, name) in SLOW)) for zoo in ZOOS for name in OWN]


@pytest.mark.parametrize(("zoo", "name"), PAIRS)
def test_what_is_left_is_the_model_written_here(zoo: str, name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = build(zoo, name).eval(), OWN[name](10).eval()
    states = theirs.state_dict(), ours.state_dict()
    assert [value.shape for value in states[0].values()] == [value.shape for value in states[1].values()]
    ours.load_state_dict(dict(zip(states[1], states[0].values(), strict=True)))
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):  # so that statistics matter
            assert module.running_var is not None
            assert module.running_mean is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    theirs.load_state_dict(dict(zip(states[0], ours.state_dict().values(), strict=True)))
    inputs = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(inputs), ours(inputs), rtol=1e-4, atol=1e-5)


Case = tuple[list[str], str, int]  # what was changed, the first convolution, and the side of its map
SMALL: dict[str, dict[str, Case]] = {
    "timm": {
        "convnext_atto": (["stem.0: kernel 4 to 3, stride 4 to 1"], "stem.0", 32),
        "vit_tiny_patch16_224": (["images of 32 pixels in patches of 4"], "patch_embed.proj", 8),
        "mobilenetv3_small_050": (["conv_stem: stride 2 to 1"], "conv_stem", 32),
        "mobilenetv2_035": (["conv_stem: stride 2 to 1"], "conv_stem", 32),
        "regnetx_002": (["stem.conv: stride 2 to 1"], "stem.conv", 32),
    },
    "torchvision": {
        "mobilenet_v2": (["features.0.0: stride 2 to 1"], "features.0.0", 32),
        "mobilenet_v3_small": (["features.0.0: stride 2 to 1"], "features.0.0", 32),
        "shufflenet_v2_x0_5": (["conv1.0: stride 2 to 1", "maxpool: no pooling"], "conv1.0", 32),
        "mnasnet0_5": (["layers.0: stride 2 to 1"], "layers.0", 32),
        "regnet_x_400mf": (["stem.0: stride 2 to 1"], "stem.0", 32),
        "densenet121": (
            ["features.conv0: kernel 7 to 3, stride 2 to 1", "features.pool0: no pooling"], "features.conv0", 32,
        ),
    },
}  # fmt: skip
LARGE = ("densenet121", "regnet_x_400mf", "mobilenetv3_small_050")
CASES = [
    pytest.param(zoo, name, case, marks=[pytest.mark.slow] * (name in LARGE))
    for zoo, cases in SMALL.items()
    for name, case in cases.items()
]


@pytest.mark.parametrize(("zoo", "name", "case"), CASES)
def test_a_small_image_keeps_its_map_in_the_first_layers(zoo: str, name: str, case: Case) -> None:
    changes, first, side = case
    sizes: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(output.shape[-1])

    model = build(zoo, name).eval()
    assert changes_of(model) == changes
    model.get_submodule(first).register_forward_hook(note)
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sizes == [side]


def test_the_original_stem_is_the_original_model() -> None:
    model = build("torchvision", "resnet18", stem="original")
    assert changes_of(model) == []
    assert model.get_submodule("conv1").weight.shape == (64, 3, 7, 7)
    assert isinstance(model.get_submodule("maxpool"), nn.MaxPool2d)


def test_a_new_kernel_lets_the_outputs_vary_as_much_as_the_old_one() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 64, 64)
    spreads = []
    for stem in ("original", "cifar"):
        first = build("torchvision", "resnet18", stem=stem).get_submodule("conv1")
        spreads.append(float(first(inputs)[:, :, 4:-4, 4:-4].detach().std()))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1)


def test_torchvisions_vision_transformer_gets_small_patches_and_keeps_what_fits() -> None:
    from torchvision.models import VisionTransformer

    from cifar.models.zoo.torchvision_zoo import with_small_patches

    torch.manual_seed(0)
    large = VisionTransformer(64, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=10)
    small, changes = with_small_patches(large, 10, 32)
    assert changes == ["images of 32 pixels in patches of 4"]
    assert small(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    for key, value in large.state_dict().items():
        if key not in ("conv_proj.weight", "encoder.pos_embedding"):
            assert torch.equal(value, small.state_dict()[key]), key
    assert small.state_dict()["encoder.pos_embedding"].shape == (1, 65, 8)


@pytest.mark.parametrize(
    ("zoo", "name", "options", "message"),
    [
        ("timm", "resnet118", {}, "model.name='resnet118' is none of timm's. Did you mean one of resnet1"),
        ("torchvision", "resnet19", {}, "model.name='resnet19' is none of torchvision's. Did you mean one of resnet1"),
        (
            "torchvision",
            "squeezenet1_1",
            {},
            "belongs to SqueezeNet, and what fits that to small images is not known here",
        ),
        ("timm", "mixer_s32_224", {}, "To take it as it is, made for large images: model.stem=original."),
        (
            "timm",
            "resnet10t",
            {},
            "model.stem=cifar is not possible: conv1 is of type Sequential. model.stem=original is.",
        ),
        ("timm", "resnet18", {"stem": "small"}, "model.stem='small' is not possible: it takes one of cifar, original."),
        ("timm", "resnet18", {"pretrained": 1}, "model.pretrained=1 is not possible: it takes true or false."),
        ("timm", "vit_tiny_patch16_224", {"stem": "original"}, "can't take images of 32×32 pixels: "),
    ],
)
def test_what_is_not_possible_is_one_message(zoo: str, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        build(zoo, name, **options)


def test_without_timm_the_way_to_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError) as error:
        build("timm", "resnet18")
    assert str(error.value) == "model=timm needs timm: pip install 'cifar-framework[zoo]'"


def test_a_run_says_and_writes_down_what_was_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["model=timm", "model.name=test_efficientnet", "data.limit=20", "data.test_limit=10"]
    quiet = [word for word in QUIET if not word.startswith("model.")]
    cifar.train(cifar.compose([*quiet, *words]), tmp_path / "run")
    changes = ["conv_stem: stride 2 to 1"]
    assert read_summary(tmp_path / "run")["model_changes"] == changes
    assert "The model was fitted to small images: conv_stem: stride 2 to 1" in caplog.text
    run = cifar.load_run(tmp_path / "run")
    assert changes_of(run.model) == changes

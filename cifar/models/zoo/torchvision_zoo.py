"""torchvision's models, fitted to 32×32 images: `cifar run model=torchvision model.name=mobilenet_v2`."""

import difflib
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import vision_transformer

from cifar.base.errors import UserError
from cifar.base.limits import refuse_impossible
from cifar.models.zoo.surgery import (
    LIMITS,
    PATCH,
    STEMS,
    Surgery,
    linear_head,
    refuse_unfit_images,
    small_stem,
    unknown_surgery,
)

# What is done to a family of models, under the name of its class.
SURGERIES: dict[str, Surgery] = {
    "ResNet": small_stem("conv1", "maxpool"),
    "DenseNet": small_stem("features.conv0", "features.pool0"),
    "ConvNeXt": small_stem("features.0.0"),
    "RegNet": small_stem("stem.0"),
    "EfficientNet": small_stem("features.0.0"),
    "MobileNetV2": small_stem("features.0.0"),
    "MobileNetV3": small_stem("features.0.0"),
    "MNASNet": small_stem("layers.0"),
    "ShuffleNetV2": small_stem("conv1.0", "maxpool"),
}


def torchvision_model(
    name: str, num_classes: int, pretrained: bool, stem: str, image_size: int, options: dict[str, Any]
) -> nn.Module:
    """Build a model of torchvision's with its `options`; its `changes` say what was done to it.

    Raises `UserError` for a name that is none, and for one whose surgery is not known.
    """
    refuse_impossible("model", {key: value for key, value in locals().items() if key in LIMITS}, LIMITS)
    known = models.list_models(module=models)
    if name not in known:
        guesses = ", ".join(difflib.get_close_matches(name, known, n=3))
        hint = f" Did you mean one of {guesses}?" if guesses else ""
        raise UserError(f"model.name={name!r} is none of torchvision's.{hint}")
    try:
        if pretrained:  # which torchvision has with its own classes only
            model: nn.Module = models.get_model(name, weights="DEFAULT", **options)
            replace_head(model, num_classes)
        else:
            model = models.get_model(name, weights=None, num_classes=num_classes, **options)
    except (OSError, RuntimeError) as error:
        raise UserError(f"model.name={name!r} can't be had{' with trained weights' * pretrained}: {error}") from error
    changes: list[str] = []
    if stem == STEMS[0]:
        model, changes = operate(model, name, num_classes, image_size)
    refuse_unfit_images(model, name, image_size)
    model.changes = changes  # type: ignore[assignment]
    return model


def replace_head(model: nn.Module, num_classes: int) -> None:
    """Give the model a new last linear layer."""
    name, last = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    model.set_submodule(name, nn.Linear(last.in_features, num_classes))


def operate(model: nn.Module, name: str, num_classes: int, image_size: int) -> tuple[nn.Module, list[str]]:
    """Return the model, or a smaller one of its kind, and what was changed."""
    kind = type(model).__name__
    if isinstance(model, models.VisionTransformer):
        return with_small_patches(model, num_classes, image_size)
    if kind == "VGG":
        head = {"pooling": "avgpool", "hidden": "classifier", "head": "classifier"}
        return model, linear_head(model, num_classes, **head, channels=512)
    if kind not in SURGERIES:
        raise unknown_surgery(name, kind, [*SURGERIES, "VGG", "VisionTransformer"])
    return model, SURGERIES[kind](model)


def with_small_patches(
    model: vision_transformer.VisionTransformer, num_classes: int, image_size: int
) -> tuple[nn.Module, list[str]]:
    """Return a vision transformer of the same layers for small images, with its weights but for those that differ."""
    blocks = [*model.encoder.layers]
    small = vision_transformer.VisionTransformer(
        image_size=image_size,
        patch_size=PATCH,
        num_layers=len(blocks),
        num_heads=blocks[0].num_heads,
        hidden_dim=model.hidden_dim,
        mlp_dim=model.mlp_dim,
        num_classes=num_classes,
        dropout=model.dropout,
        attention_dropout=model.attention_dropout,
    )
    other = small.state_dict()
    same = {key: value for key, value in model.state_dict().items() if other[key].shape == value.shape}
    small.load_state_dict(other | same)
    return small, [f"images of {image_size} pixels in patches of {PATCH}"]

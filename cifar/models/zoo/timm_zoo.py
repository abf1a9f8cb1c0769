"""timm's models, fitted to 32×32 images: `cifar run model=timm model.name=convnext_atto` (the extra `zoo`)."""

import difflib
from typing import Any

from torch import nn

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
    "ConvNeXt": small_stem("stem.0"),
    "RegNet": small_stem("stem.conv"),
    "EfficientNet": small_stem("conv_stem"),  # MobileNetV2 too
    "MobileNetV3": small_stem("conv_stem"),
}


def timm_model(
    name: str, num_classes: int, pretrained: bool, stem: str, image_size: int, options: dict[str, Any]
) -> nn.Module:
    """Build a model of timm's with its `options`; its `changes` say what was done to it.

    Raises `UserError` if timm is missing, for a name that is none, and for one whose surgery is not known.
    """
    refuse_impossible("model", {key: value for key, value in locals().items() if key in LIMITS}, LIMITS)
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UserError("model=timm needs timm: pip install 'cifar-framework[zoo]'") from error
    if not timm.is_model(name.partition(".")[0]):
        guesses = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=3))
        raise UserError(
            f"model.name={name!r} is none of timm's.{f' Did you mean one of {guesses}?' if guesses else ''}"
        )
    is_cifar, changes = stem == STEMS[0], list[str]()
    family = timm.model_entrypoint(name.partition(".")[0])
    sized: dict[str, Any] = {}
    if is_cifar and family.__module__ in ("timm.models.vision_transformer", "timm.models.deit"):
        sized = {"img_size": image_size, "patch_size": PATCH}
        changes.append(f"images of {image_size} pixels in patches of {PATCH}")
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **sized, **options)
    except (OSError, RuntimeError) as error:
        raise UserError(f"model.name={name!r} can't be had{' with trained weights' * pretrained}: {error}") from error
    if is_cifar and not sized:
        changes += operate(model, name, num_classes)
    refuse_unfit_images(model, name, image_size)
    model.changes = changes  # type: ignore[assignment]
    return model


def operate(model: nn.Module, name: str, num_classes: int) -> list[str]:
    """Fit a model to small images and return what was changed."""
    kind = type(model).__name__
    if kind == "VGG":
        return linear_head(model, num_classes, pooling="pre_logits", hidden="pre_logits", head="head.fc", channels=512)
    if kind not in SURGERIES:
        raise unknown_surgery(name, kind, [*SURGERIES, "VGG", "VisionTransformer"])
    return SURGERIES[kind](model)

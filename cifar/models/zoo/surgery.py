"""What has to change in a network for large images before it can work on images of 32×32 pixels.

A network for 224×224 halves its maps two times or four in its first layers. Of a small image almost nothing is then
left, and it trains all the same, only badly. So the first convolution gets stride 1 and a kernel of 3, and the pooling
behind it goes, as in the residual networks of this project (cifar/models/resnet_he.py).
"""

from collections.abc import Callable

import torch
from torch import nn

from cifar.base.errors import UserError
from cifar.base.limits import FLAG, NUM_CLASSES, Limit, whole_number

SIDE = 3  # of the new first convolution's kernel
PATCH = 4  # pixels of a side of a vision transformer's patch, so that a small image has 8×8 of them
STEMS = ("cifar", "original")
LIMITS = {
    "name": Limit("a model's name", lambda value: isinstance(value, str) and bool(value)),
    "num_classes": NUM_CLASSES,
    "pretrained": FLAG,
    "stem": Limit("one of " + ", ".join(STEMS), lambda value: value in STEMS),
    "image_size": whole_number(4, 4096, " of pixels"),
    "options": Limit("keys with values", lambda value: isinstance(value, dict)),
}

Surgery = Callable[[nn.Module], list[str]]


def small_stem(first: str, pooling: str | None = None) -> Surgery:
    """Return what gives the convolution called `first` stride 1 and a kernel of 3, and takes the `pooling` away."""

    def operate(model: nn.Module) -> list[str]:
        changes = [shrink(model, first)]
        if pooling is not None:
            model.set_submodule(pooling, nn.Identity())
            changes.append(f"{pooling}: no pooling")
        return [change for change in changes if change]

    return operate


def shrink(model: nn.Module, name: str) -> str:
    """Give a convolution stride 1 and a kernel of 3; return what has changed, "" for nothing.

    A kernel of another size is drawn anew, from a normal distribution under which the outputs vary as much as before.
    """
    old = model.get_submodule(name)
    if not isinstance(old, nn.Conv2d):
        raise UserError(
            f"model.stem=cifar is not possible: {name} is of type {type(old).__name__}. model.stem=original is."
        )
    (before, stride), padding = (old.kernel_size[0], old.stride[0]), (SIDE // 2, SIDE // 2)
    if before == SIDE:
        old.stride, old.padding = (1, 1), padding
        return f"{name}: stride {stride} to 1" if stride > 1 else ""
    new = nn.Conv2d(old.in_channels, old.out_channels, SIDE, 1, padding, bias=old.bias is not None)
    with torch.no_grad():
        nn.init.normal_(new.weight).mul_(old.weight.std() * before / SIDE)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(name, new)
    return f"{name}: kernel {before} to {SIDE}, stride {stride} to 1"


def linear_head(
    model: nn.Module, num_classes: int, *, pooling: str, hidden: str, head: str, channels: int
) -> list[str]:
    """Give a VGG a single linear layer for its 1×1 map, instead of a pooling up to 7×7 and two hidden layers."""
    model.set_submodule(pooling, nn.Identity())
    if hidden != head:
        model.set_submodule(hidden, nn.Identity())
    model.set_submodule(head, nn.Linear(channels, num_classes))
    return [f"{head}: one linear layer of {channels} channels, without hidden layers"]


def refuse_unfit_images(model: nn.Module, name: str, size: int) -> None:
    """Raise `UserError` if images of this size do not go through the model."""
    was_training, random_state = model.training, torch.get_rng_state()
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model.name={name!r} can't take images of {size}×{size} pixels: {reason}.") from error
    finally:
        model.train(was_training)
        torch.set_rng_state(random_state)


def unknown_surgery(name: str, family: str, known: list[str]) -> UserError:
    """Return the error for a model that nobody here knows how to fit to small images."""
    return UserError(
        f"model.name={name!r} belongs to {family}, and what fits that to small images is not known here: only "
        f"{', '.join(sorted(known))}. To take it as it is, made for large images: model.stem=original."
    )

"""What a checkpoint keeps of the data set, so that its model can be used without: names, size, normalisation."""

import logging
from typing import Any

from omegaconf import DictConfig

from cifar.base.errors import UserError
from cifar.data.sources.source import known_class_names
from cifar.tracking.predictions import named

log = logging.getLogger(__name__)

LARGEST_SIZE = 4096  # of an image's side


def stored_names(checkpoint: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Return the classes' names; those of a checkpoint that has none are known of shipped data only, else numbers."""
    names = checkpoint.get("class_names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    num_classes = int(config["data"]["num_classes"])
    known = known_class_names(config["data"]["source"].get("_target_"))
    if not known:
        log.warning("This checkpoint is from before class names were kept: its classes have numbers.")
    return named(known, num_classes)


def stored_size(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Return the height and width of the images that the model was trained on."""
    size = checkpoint.get("image_size", [32, 32])  # before it was kept, all data had this one
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise UserError(f"The checkpoint has an image_size that is none: {size!r}.")
    if not all(1 <= side <= LARGEST_SIZE for side in size):
        raise UserError(f"The checkpoint's image_size={size} is not possible: a side has 1 to {LARGEST_SIZE} pixels.")
    return size[0], size[1]


def take_normalisation(cfg: DictConfig, checkpoint: dict[str, Any], origin: str) -> None:
    """Give the configuration what was computed of the training images, where it has nothing of its own.

    Raises `UserError`, which begins with the `origin`, if the checkpoint does not have it either.
    """
    computed = checkpoint.get("normalisation")
    for key in ("mean", "std"):
        if cfg.data[key] is None:
            value = computed.get(key) if isinstance(computed, dict) else None
            if value is None:
                raise UserError(f"{origin} does not tell with which data.{key} the images were normalised.")
            cfg.data[key] = value

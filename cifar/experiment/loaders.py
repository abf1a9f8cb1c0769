"""The images of a run, read, divided and given to loaders; what does not go together is refused before."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.data.images import Images, channel_statistics, checked, of_classes
from cifar.data.loader import Loader
from cifar.data.sizes import SizeSchedule
from cifar.data.sources.source import Source
from cifar.data.splits import stratified_split
from cifar.experiment.building import Parts
from cifar.training.devices.memory import has_batch_norm
from cifar.training.distributed import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaders:
    """The sets of images; `val` is None without a validation split."""

    train: Loader
    val: Loader | None
    test: Loader
    class_names: list[str]
    normalisation: dict[str, list[float]]  # mean and std


def build_loaders(cfg: DictConfig, parts: Parts) -> Loaders:
    """Read the images, hold out the validation images, then keep the first `data.limit` of the rest to train on."""
    images = load_images(cfg, parts.source)
    num_images = len(images.train_labels)
    if cfg.data.val_size >= num_images:
        raise UserError(f"data.val_size={cfg.data.val_size} is not possible: there are {num_images} training images.")
    kept, held_out = stratified_split(images.train_labels, cfg.data.val_size, cfg.data.split_seed)
    num_classes = cfg.model.get("num_classes", cfg.data.num_classes)
    refuse_counts(cfg, images, len(kept), num_classes)
    kept, tested = kept[: cfg.data.limit], slice(cfg.data.test_limit)
    ranks = parts.train_step.ranks
    if ranks.count > min(cfg.batch_size, len(kept)):
        raise UserError(f"batch_size={cfg.batch_size} is less than one image for each of the {ranks.count} processes.")
    refuse_single_images(cfg, parts.model, len(kept), ranks)
    refuse_sizes(cfg, parts, images)

    normal = normalisation(cfg, images)

    def loader(images: Tensor, labels: Tensor, batch_size: int, **options: Any) -> Loader:
        device = parts.device.torch_device
        options |= {**normal, "channels_last": parts.device.channels_last}
        num_parts = cfg.accumulate if "augment" in options else 1
        options["share"] = partial(ranks.places, num_parts=num_parts) if ranks.are_several else None
        return Loader(images.to(device), labels.to(device), batch_size=batch_size, **options)

    def training_images(indices: Tensor) -> tuple[Tensor, Tensor]:
        return images.train_images[indices], images.train_labels[indices]

    mixing = {
        "mix": parts.mix,
        "num_classes": num_classes,
        "sizes": SizeSchedule(cfg.data.size_schedule or (), cfg.epochs),
    }
    shuffling = {"augment": parts.augment, **mixing, "shuffle": cfg.data.shuffle, "seed": cfg.seed}
    return Loaders(
        train=loader(*training_images(kept), cfg.batch_size, **shuffling),
        val=loader(*training_images(held_out), cfg.eval_batch_size) if len(held_out) else None,
        test=loader(images.test_images[tested], images.test_labels[tested], cfg.eval_batch_size),
        class_names=images.class_names,
        normalisation=normal,
    )


def load_images(cfg: DictConfig, source: Source) -> Images:
    """Return all images of the classes that the run has, checked."""
    images = checked(source.load(), cfg.data.source._target_)
    return images if cfg.data.classes is None else of_classes(images, [*cfg.data.classes])


def normalisation(cfg: DictConfig, images: Images) -> dict[str, list[float]]:
    """Return the mean and standard deviation of each channel: those given, else those of all training images."""
    given = {"mean": cfg.data.mean, "std": cfg.data.std}
    if None not in given.values():
        return {key: [*value] for key, value in given.items()}
    found = dict(zip(given, channel_statistics(images.train_images), strict=True))
    chosen = {key: found[key] if value is None else [*value] for key, value in given.items()}
    log.info(f"Normalisation by the training images: mean {chosen['mean']}, std {chosen['std']}")
    return chosen


def refuse_counts(cfg: DictConfig, images: Images, num_left: int, num_classes: int) -> None:
    """Raise `UserError` where more images or classes are asked for than there are; `num_left` are not held out."""
    if cfg.data.limit is not None and cfg.data.limit > num_left:
        raise UserError(f"data.limit={cfg.data.limit} is not possible: there are {num_left} images to train on.")
    if cfg.data.test_limit is not None and cfg.data.test_limit > len(images.test_labels):
        raise UserError(
            f"data.test_limit={cfg.data.test_limit} is not possible: there are {len(images.test_labels)} test images."
        )
    if len(images.class_names) > num_classes:
        raise UserError(f"model.num_classes={num_classes} is too few: the data has {len(images.class_names)} classes.")
    if cfg.accumulate > cfg.batch_size:
        raise UserError(f"accumulate={cfg.accumulate} is not possible: a batch has {cfg.batch_size} images.")


def refuse_sizes(cfg: DictConfig, parts: Parts, images: Images) -> None:
    """Raise `UserError` if the model can't take images of a size that it meets, other than 32 by 32 pixels."""
    height, width = images.train_images.shape[2:]
    chosen = cfg.data.size_schedule or []
    if chosen and (height != width or max(chosen) > height):
        raise UserError(
            f"data.size_schedule={[*chosen]} is not possible: images of {height}×{width} pixels can be made smaller, "
            f"{'to the sides of squares' if height == width else 'if they are square'}."
        )
    for size in dict.fromkeys([(height, width), *((size, size) for size in chosen)]):
        if size != (32, 32):
            if size == (height, width):
                what, way_out = "The images have", "images of 32×32 pixels (with data=folder: data.source.size=32)"
            else:
                what, way_out = f"data.size_schedule={[*chosen]} makes images of", "another data.size_schedule"
            refuse_size(cfg, parts, size, what, way_out)


@torch.no_grad()
def refuse_size(cfg: DictConfig, parts: Parts, size: tuple[int, int], what: str, way_out: str) -> None:
    """Raise `UserError` if the model can't take images of this height and width; `what` says whose they are."""
    was_training = parts.model.training
    try:
        with parts.device.autocast():
            parts.model.eval()(torch.zeros((2, 3, *size), device=parts.device.torch_device))
    except (RuntimeError, ValueError, AssertionError) as error:  # torch's, and those of libraries of models
        raise UserError(
            f"{what} {size[0]}×{size[1]} pixels, and model._target_={cfg.model._target_} can't take these "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Choose another model, or "
            f"{way_out}."
        ) from error
    finally:
        parts.model.train(was_training)


def refuse_single_images(cfg: DictConfig, model: nn.Module, num_images: int, ranks: Ranks) -> None:
    """Raise `UserError` if a batch of the epoch, or a part of it, is one image and the model has batch norm."""
    sizes = {min(cfg.batch_size, num_images), num_images % cfg.batch_size or cfg.batch_size}
    parts = [counts for size in sizes for counts in ranks.parts(size, cfg.accumulate)]
    is_joint = cfg.device.sync_batch_norm
    seen = {sum(counts) for counts in parts} if is_joint else {size for counts in parts for size in counts}
    if has_batch_norm(model) and cfg.epochs and 1 in seen:
        among = f" in {ranks.count} processes" if ranks.are_several else ""
        raise UserError(
            f"batch_size={cfg.batch_size} with accumulate={cfg.accumulate}{among} is not possible for {num_images} "
            "training images: it sends one image alone through the model, over which batch norm can't average. "
            f"Change batch_size, accumulate or data.limit{', or take device.sync_batch_norm=true' if among else ''}."
        )

"""One run from its configuration: build everything, train, test, and write down what happened.

The configuration stops here: the modules below get plain arguments.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from cifar.checkpoint import load_weights, save_checkpoint
from cifar.config import check, config_hash, resolve
from cifar.data.augment import Augment
from cifar.data.loader import Loader
from cifar.data.sources import Source
from cifar.data.splits import stratified_split
from cifar.device import Device, set_up_device
from cifar.errors import UserError, describe_end
from cifar.run_folder import git_commit, library_versions, write_json
from cifar.schedules import Schedule
from cifar.tracking import MetricsFile, NoTracker, RunInfo
from cifar.trainer import Metrics, Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Everything that is built before data is read, so that a mistake shows at once."""

    device: Device
    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    source: Source
    augment: Augment
    tracker: NoTracker


@dataclass(frozen=True)
class Loaders:
    """The sets of images; `val` is None without a validation split."""

    train: Loader
    val: Loader | None
    test: Loader
    class_names: list[str]


def run(cfg: DictConfig, folder: Path, name: str = "run", group: str | None = None) -> float:
    """Train and test what `cfg` describes, leave everything in `folder`, and return the accuracy to choose by.

    That is the validation accuracy, or the test accuracy if there is no split. `name` and `group` are for the
    dashboard. Raises `UserError` for a mistake in the configuration. summary.json is written however the run ends.
    """
    summary: dict[str, Any] = {"status": "completed"}
    try:
        return train_and_test(cfg, folder, RunInfo(name, group, resolve(cfg)), summary)
    except BaseException as error:
        summary |= describe_end(error)
        raise
    finally:
        write_json(folder / "summary.json", summary)


def train_and_test(cfg: DictConfig, folder: Path, info: RunInfo, summary: dict[str, Any]) -> float:
    """Do the work of `run`, filling `summary` as facts become known."""
    start = perf_counter()
    check(cfg)
    parts = build_parts(cfg, info)
    summary |= {
        "seed": cfg.seed,
        "config_hash": config_hash(info.config),
        "git_commit": git_commit(),
        "versions": library_versions(),
        "device": parts.device.hardware_name(),
        "precision": parts.device.precision,
        "num_parameters": sum(parameter.numel() for parameter in parts.model.parameters()),
    }
    loaders = build_loaders(cfg, parts)
    num_train, num_val = len(loaders.train.labels), len(loaders.val.labels) if loaders.val else 0
    log.info(
        f"{cfg.model._target_.rpartition('.')[2]} with {summary['num_parameters']:,} parameters on "
        f"{parts.device.describe()}; {num_train:,} training, {num_val:,} validation and "
        f"{len(loaders.test.labels):,} test images"
    )
    with parts.tracker as tracker:
        trainer = build_trainer(cfg, parts, loaders, folder, info)
        summary["setup_seconds"] = perf_counter() - start
        try:
            trainer.fit()
            test = trainer.test(loaders.test)
        finally:
            summary |= trainer.progress()
        summary |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
        tracker.log_predictions(loaders.test.labels, test.predictions, loaders.class_names)
        tracker.summarise(summary)
    log.info(f"Results: {os.path.relpath(folder)}")
    return float(summary.get("val_accuracy", test.accuracy))


def build_parts(cfg: DictConfig, info: RunInfo) -> Parts:
    """Build what needs no data, the model with its first weights (those of `init_from` if it is given)."""
    device = set_up_device(**cfg.device)
    source, augment, schedule = create(cfg.data.source), create(cfg.augment), create(cfg.schedule)
    tracker = create(cfg.tracker, info)
    torch.manual_seed(cfg.seed)
    model = create(cfg.model)
    if cfg.init_from is not None:
        load_weights(model, Path(cfg.init_from).expanduser())
    model.to(device.torch_device, memory_format=device.memory_format)
    return Parts(device, model, create(cfg.optimizer, model.parameters()), schedule, source, augment, tracker)


def create(node: DictConfig, *args: Any) -> Any:
    """Call the node's `_target_` with `args` and the node's values; raise `UserError` if it does not take them."""
    try:
        return instantiate(node, *args, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(str(error)) from error


def build_loaders(cfg: DictConfig, parts: Parts) -> Loaders:
    """Read the images, hold out the validation images, then keep the first `data.limit` of the rest."""
    images = parts.source.load()
    num_images = len(images.train_labels)
    if cfg.data.val_size >= num_images:
        raise UserError(f"data.val_size={cfg.data.val_size} is not possible: there are {num_images} training images.")
    kept, held_out = stratified_split(images.train_labels, cfg.data.val_size, cfg.seed)
    if cfg.data.limit is not None and cfg.data.limit > len(kept):
        raise UserError(f"data.limit={cfg.data.limit} is not possible: there are {len(kept)} images to train on.")
    kept = kept[: cfg.data.limit]
    if len(images.class_names) > (num_classes := cfg.model.get("num_classes", cfg.data.num_classes)):
        raise UserError(f"model.num_classes={num_classes} is too few: the data has {len(images.class_names)} classes.")
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in parts.model.modules())
    if has_batch_norm and cfg.epochs and 1 in (cfg.batch_size, len(kept) % cfg.batch_size):
        raise UserError(
            f"batch_size={cfg.batch_size} is not possible with {len(kept)} training images: it makes a batch of "
            "one image, over which batch norm can't average. Change batch_size or data.limit."
        )

    def loader(images: Tensor, labels: Tensor, batch_size: int, **options: Any) -> Loader:
        device = parts.device.torch_device
        options |= {"mean": list(cfg.data.mean), "std": list(cfg.data.std), "channels_last": parts.device.channels_last}
        return Loader(images.to(device), labels.to(device), batch_size=batch_size, **options)

    def training_images(indices: Tensor) -> tuple[Tensor, Tensor]:
        return images.train_images[indices], images.train_labels[indices]

    shuffling = {"augment": parts.augment, "shuffle": cfg.data.shuffle, "seed": cfg.seed}
    return Loaders(
        train=loader(*training_images(kept), cfg.batch_size, **shuffling),
        val=loader(*training_images(held_out), cfg.eval_batch_size) if len(held_out) else None,
        test=loader(images.test_images, images.test_labels, cfg.eval_batch_size),
        class_names=images.class_names,
    )


def build_trainer(cfg: DictConfig, parts: Parts, loaders: Loaders, folder: Path, info: RunInfo) -> Trainer:
    """Build the trainer; it logs to metrics.jsonl and the open tracker and saves checkpoint.pt after every epoch."""
    metrics_file = MetricsFile(folder / "metrics.jsonl")

    def log_metrics(metrics: Metrics, step: int, epoch: int) -> None:
        metrics_file.log(metrics, step, epoch)
        parts.tracker.log(metrics, step)

    def save() -> None:
        content = {"config": info.config, "config_hash": config_hash(info.config), **trainer.state_dict()}
        save_checkpoint(folder / "checkpoint.pt", content)

    trainer = Trainer(
        parts.model,
        parts.optimizer,
        parts.schedule,
        loaders.train,
        loaders.val,
        parts.device,
        epochs=cfg.epochs,
        label_smoothing=cfg.label_smoothing,
        log_every=cfg.log_every,
        log_metrics=log_metrics,
        save=save,
    )
    return trainer

"""What the ranks of a run do that are not the first: they take its steps with it and write nothing down."""

import logging
import warnings
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar.base import signals
from cifar.experiment.beside.extra_sets import build_extra
from cifar.experiment.building import build_parts
from cifar.experiment.keeper import look_around
from cifar.experiment.loaders import build_loaders
from cifar.experiment.run import fit_and_test, fit_to_images, go_on_from, new_trainer
from cifar.tracking.tracking import NoTracker, RunInfo
from cifar.training.distributed import GoneError, Ranks
from cifar.training.trainer import Trainer

NO_TRACKER = f"{NoTracker.__module__}.{NoTracker.__qualname__}"


def follow() -> None:
    """Wait for rank 0 to begin a run, take part in it, and return when it has ended or none was begun."""
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    ranks = Ranks.current()
    try:
        begun = ranks.told()
    except GoneError:  # rank 0 has said why
        return
    if begun is None:
        return
    config, checkpoint = begun
    cfg = OmegaConf.create(config | {"tracker": {"_target_": NO_TRACKER}})
    assert isinstance(cfg, DictConfig)
    with signals.deferred(lambda: None):
        work(cfg, checkpoint)


def work(cfg: DictConfig, checkpoint: dict[str, Any] | None) -> None:
    """Do what rank 0 does in `train_and_test`, without what that writes down."""
    parts = build_parts(cfg, RunInfo(name="", group=None, config={}, is_resumed=checkpoint is not None))
    loaders = build_loaders(cfg, parts)
    if checkpoint is None and cfg.init_from is None:
        fit_to_images(parts.model, loaders.train)
    trainer = new_trainer(cfg, parts, loaders)
    if checkpoint is not None:
        go_on_from(checkpoint, trainer, "The checkpoint")
    trainer.between_batches = partial(between_batches, trainer)
    trainer.after_epoch = partial(after_epoch, trainer)
    extra = build_extra(cfg.test_on, loaders.class_names, loaders.test.images.shape[2:])
    fit_and_test(trainer, loaders, cfg.tta, extra, {})


def between_batches(trainer: Trainer) -> None:
    """Look around with rank 0, and bring to it what it saves."""
    has_come, is_due = look_around(trainer.ranks)
    if (has_come or is_due) and not trainer.watch.has_diverged:
        trainer.meet()
        has_come, _ = look_around(trainer.ranks)
    if has_come:
        signals.check()


def after_epoch(trainer: Trainer) -> None:
    """Bring to rank 0 what it saves, if it does."""
    if trainer.ranks.told():
        trainer.meet()

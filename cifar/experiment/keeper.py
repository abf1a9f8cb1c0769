"""What a run writes down while it goes: its metrics to a file and the tracker, its state to checkpoints."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cifar.base import signals
from cifar.base.locks import Held
from cifar.experiment.config import config_hash
from cifar.experiment.stored.configuration import references
from cifar.experiment.stored.formats import FORMAT_VERSION
from cifar.experiment.typed.command_line import resume_command
from cifar.tracking.tracking import MetricsFile, NoTracker
from cifar.training.checkpoint import Checkpoints
from cifar.training.distributed import Ranks
from cifar.training.evaluator import Metrics
from cifar.training.measures.counters import Best
from cifar.training.state import is_finite, state_of
from cifar.training.trainer import Trainer

log = logging.getLogger(__name__)


def look_around(ranks: Ranks, is_due: bool = False) -> tuple[bool, bool]:
    """Return whether a signal has come to any rank, and so to all of them, and whether one finds that saving is due."""
    number, due = ranks.agreed(signals.number(), int(is_due))
    signals.pass_on(number)
    return number > 0, due > 0


class Keeper:
    """Log metrics, save the state when that is due, and tell `after_validation` how the epochs went.

    The checkpoints get the `facts` of the run's beginning. With the content of a `checkpoint` the metrics file goes on
    from there.
    """

    def __init__(
        self,
        cfg: DictConfig,
        folder: Path,
        tracker: NoTracker,
        facts: dict[str, Any],
        checkpoint: dict[str, Any] | None = None,
        after_validation: Callable[[int, float], None] = lambda epoch, accuracy: None,
    ) -> None:
        self.tracker, self.after_validation = tracker, after_validation
        self.checkpoints = Checkpoints(folder, **cfg.checkpoint, way_on=resume_command(folder))
        self.metrics_file = MetricsFile(folder / "metrics.jsonl", None if checkpoint is None else checkpoint["metrics"])
        self.lock = Held(folder)
        self.best: Best | None = None  # whose weights best.pt has
        info = tracker.info
        self.facts = {
            "format_version": FORMAT_VERSION,
            "config": info.config,
            "config_hash": config_hash(info.config, facts["init_hash"]),
            "references": references(cfg),
            **facts,
            "run": {"name": info.name, "group": info.group, "origin": info.origin, "id": info.id},
            "times_resumed": 0 if checkpoint is None else checkpoint["times_resumed"] + 1,
        }

    def follow(self, trainer: Trainer) -> None:
        """Be told what the trainer does."""
        trainer.log_metrics = partial(self.log_metrics, trainer)
        trainer.between_batches = partial(self.between_batches, trainer)
        trainer.after_epoch = partial(self.after_epoch, trainer)
        self.keep_best(trainer)

    def log_metrics(self, trainer: Trainer, metrics: Metrics, step: int, epoch: int) -> None:
        """Write metrics down, and the best weights; raise `UserError` if the folder is no longer this run's own."""
        self.lock.check()
        self.metrics_file.log(metrics, step, epoch)
        self.tracker.log(metrics, step)
        self.keep_best(trainer)

    def keep_best(self, trainer: Trainer) -> None:
        """Write best.pt if it has not the best weights of the run so far, as it has not when a run goes on."""
        best, weights = trainer.counters.best, trainer.evaluator.best
        if best is None or best == self.best or not trainer.evaluator.keep_best:
            return
        if weights is None:
            log.warning(f"The best weights so far, of epoch {best.epoch}, were not kept: best.pt has to be better.")
        else:
            facts = {"model": weights, "best": asdict(best), "steps_per_epoch": len(trainer.train_loader)}
            self.checkpoints.save_best(self.facts | facts)
        self.best = best

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint, unless what was saved is finite and this state is not.

        Raises `UserError` if the folder is no longer this run's own.
        """
        trainer.meet()
        self.lock.check()
        with trainer.apart_from_training():
            if self.checkpoints.exist() and not is_finite(trainer):
                log.warning(
                    f"The state after step {trainer.counters.step} is not finite, so the checkpoint before it stays."
                )
                self.checkpoints.wait()
                return
            self.checkpoints.save({**self.facts, "metrics": self.metrics_file.state(), **state_of(trainer)})

    def between_batches(self, trainer: Trainer) -> None:
        """Save if it is time, or if a signal has come, which then ends the run."""
        has_come, is_due = look_around(trainer.ranks, self.checkpoints.due_by_time())
        if (has_come or is_due) and not trainer.watch.has_diverged:  # if it has, the checkpoint before tells that
            self.save(trainer)
            has_come, _ = look_around(trainer.ranks)
        if has_come:
            signals.check()

    def after_epoch(self, trainer: Trainer) -> None:
        """Save if it is due after this epoch, and pass the validation accuracy on."""
        counters = trainer.counters
        if trainer.ranks.told(self.checkpoints.due_after_epoch(counters.epoch) or counters.epoch == trainer.epochs):
            self.save(trainer)
        self.keep_best(trainer)  # also where nothing was trained
        if counters.val_result is not None:
            self.after_validation(counters.epoch, counters.val_result.accuracy)

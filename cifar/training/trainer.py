"""The training loop: epochs of steps over one model, with an evaluation on the validation images after each."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from tqdm.contrib.logging import logging_redirect_tqdm

from cifar.base.errors import DivergedError
from cifar.data.loader import Loader
from cifar.training.averaging.averages import Average, NoAverage
from cifar.training.devices.memory import explain_out_of_memory, ways_out
from cifar.training.evaluating.evaluation import Evaluation
from cifar.training.evaluator import Evaluator, Metrics
from cifar.training.measures.counters import Counters
from cifar.training.measures.divergence import Watch
from cifar.training.measures.tallies import Window
from cifar.training.progress import outlook, progress_bar
from cifar.training.schedules import LearningRates, Schedule
from cifar.training.steps.step import TrainingStep

log = logging.getLogger(__name__)


class Trainer:
    """Take training steps on `train_loader` for `epochs`, and log.

    `log_metrics(metrics, step, epoch)` is called every `log_every` steps of an epoch and at its end, the only moments
    at which the loop waits for the device (`on_nonfinite="skip"` waits at every step). `between_batches()` is called
    whenever `state_of` would give a state from which the run can go on exactly, `after_epoch()` after each.
    """

    def __init__(
        self,
        train_step: TrainingStep,
        schedule: Schedule,
        train_loader: Loader,
        val_loader: Loader | None,
        *,
        epochs: int,
        log_every: int,
        log_metrics: Callable[[Metrics, int, int], None] = lambda metrics, step, epoch: None,
        between_batches: Callable[[], None] = lambda: None,
        after_epoch: Callable[[], None] = lambda: None,
        average: Average | None = None,
        keep_best: bool = False,
    ) -> None:
        self.train_step = train_step
        self.model, self.optimizer, self.device = train_step.model, train_step.optimizer, train_step.device
        self.train_loader, self.val_loader = train_loader, val_loader
        self.epochs, self.log_every = epochs, log_every
        self.log_metrics, self.between_batches, self.after_epoch = log_metrics, between_batches, after_epoch
        self.lrs = LearningRates(schedule, self.optimizer.param_groups, epochs, len(train_loader))
        self.counters, self.window = Counters(), Window()
        self.watch = Watch(
            train_step.on_nonfinite, self.device.precision, lambda step: self.lrs.at(step)[0], len(train_loader)
        )
        self.ranks, self.random_states = train_step.ranks, list[Any]()
        self.evaluator = Evaluator(
            train_step, train_loader, epochs, average or NoAverage(), keep_best, lambda: self.between_batches()
        )
        self.ways_out = ways_out(self.model, self.device, train_step.accumulate)

    def fit(self) -> None:
        """Train until `epochs` are done, evaluating on the validation images after each.

        Raises `DivergedError`, after evaluating the last state, when the run learns no more (measures/divergence.py).
        """
        counters = self.counters
        while counters.epoch < self.epochs:
            try:
                metrics = self.train_epoch()
            except DivergedError:
                if metrics := self.validate():
                    self.log_metrics(metrics, counters.step, counters.epoch + 1)
                raise
            self.log_metrics(metrics | self.validate(), counters.step, counters.epoch + 1)
            counters.end_epoch()
            self.after_epoch()
        if self.epochs == 0:
            self.validate()
            self.after_epoch()

    def validate(self) -> Metrics:
        """Evaluate on the validation images, if there are any, and have the run's result ready after its last epoch."""
        if self.val_loader is not None:
            epoch = self.counters.epoch + 1 if self.epochs else 0
            return self.evaluator.validate(self.val_loader, self.counters, epoch)
        if self.counters.epoch + 1 >= self.epochs:
            self.evaluator.prepare(self.counters)
        return {}

    def test(self, test_loader: Loader, tta: str = "none") -> Evaluation:
        """Evaluate on the test images: once, when all choices are made."""
        result, metrics = self.evaluator.test(test_loader, tta, self.counters)
        self.log_metrics(metrics, self.counters.step, self.counters.epoch)
        return result

    def train_epoch(self) -> Metrics:
        """Take the epoch's remaining steps, logging as it goes; return its mean loss, and the fraction correct."""
        self.model.train()
        counters, num_steps = self.counters, len(self.train_loader)
        title = f"Epoch [{counters.epoch + 1}/{self.epochs}]"
        batches = self.train_loader.epoch(counters.epoch, start=counters.index)
        if counters.index == 0:
            self.window = Window()
        self.window.go()
        with logging_redirect_tqdm(), progress_bar(batches, title, num_steps, counters.index) as bar:
            for inputs, labels in bar:
                lr = self.take_step(inputs, labels)
                if counters.index % self.log_every == 0 or counters.index == num_steps:
                    metrics, totals = self.read_window(), counters.epoch_totals
                    self.log_metrics(metrics | {"lr": lr}, counters.step, counters.epoch + 1)
                    num_left = self.epochs * num_steps - counters.step
                    bar.set_postfix_str(outlook(totals.loss, counters.seconds, counters.step, num_left), refresh=False)
                    log.info(f"{title}, Step [{counters.index}/{num_steps}] Loss: {totals.loss:.4f}{totals.note}")
                self.between_batches()
        self.window.halt()
        totals = counters.epoch_totals
        (is_bad,) = self.ranks.agreed(int(not self.train_step.is_finite()))
        self.watch.end_epoch(counters.step, totals, not is_bad)
        counters.train_loss = totals.loss
        return {"train/epoch_loss": totals.loss, "train/epoch_accuracy": totals.accuracy}

    def take_step(self, inputs: Tensor, labels: Tensor) -> float:
        """Set the learning rates, train on a batch, count it, and return the first rate."""
        lrs, num_images = self.lrs.at(self.counters.step), self.train_loader.size_of(self.counters.index)
        self.train_step.set_lrs(lrs)
        with explain_out_of_memory("batch_size", len(labels), self.ways_out):
            if self.counters.step == 0:
                self.train_step.find_scale(inputs, labels, num_images)
            self.window.add(self.train_step(inputs, labels, num_images), num_images)
        self.counters.end_step()
        self.evaluator.after_step(self.counters.step)
        return lrs[0]

    def read_window(self) -> Metrics:
        """Return the means over the steps since the last logged one, which wait for the device, and begin a new window.

        Raises `DivergedError` if the steps that were not finite are the end of the run.
        """
        steps, window = self.window.read(), self.window
        self.counters.train_seconds += window.seconds
        self.counters.num_images += window.num_images
        totals = self.watch.sort_out(steps, self.counters.step - len(steps))
        self.counters.epoch_totals.include(totals)
        metrics = {
            "train/loss": totals.loss,
            "train/accuracy": totals.accuracy,
            "train/grad_norm": totals.grad_norm,
            "train/images_per_second": window.num_images / window.seconds,
        }
        self.window = Window()
        return metrics | ({"train/skipped_steps": self.watch.num_skipped} if self.watch.num_skipped else {})

    @contextmanager
    def apart_from_training(self) -> Iterator[None]:
        """Let the time that passes inside count as no time of the steps."""
        self.device.wait()
        self.window.halt()
        yield
        self.window.go()

    def progress(self) -> dict[str, Any]:
        """Return how far the run came, its seconds and last and best results, for the summary."""
        num_skipped, facts = self.watch.num_skipped, self.counters.facts() | self.evaluator.facts()
        return facts | ({"skipped_steps": num_skipped} if num_skipped else {})

    def meet(self) -> None:
        """Bring together what each rank has of its own in the state: all of them call this before one is saved."""
        if self.ranks.are_several:
            self.random_states = self.ranks.gathered(self.device.random_state())

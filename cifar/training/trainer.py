"""The training loop: epochs of steps over one model, and the evaluation of the model."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cifar.base.errors import DivergedError
from cifar.data.loader import Loader
from cifar.training.checkpoint import load_state
from cifar.training.divergence import Watch
from cifar.training.memory import explain_out_of_memory, ways_out
from cifar.training.schedules import Schedule, group_factors
from cifar.training.step import TrainingStep
from cifar.training.tallies import Best, Evaluation, Result, Totals, Window, outlook
from cifar.training.tta import views

log = logging.getLogger(__name__)

Metrics = dict[str, float]
Batch = tuple[Tensor, Tensor]  # inputs (B, C, H, W) and labels (B,)

# What a trainer counts and a checkpoint holds.
COUNTERS = ("step", "epoch", "index", "num_images", "train_seconds", "eval_seconds", "train_loss")


class Trainer:
    """Take training steps on `train_loader` for `epochs`, and log.

    `log_metrics(metrics, step, epoch)` is called every `log_every` steps of an epoch and at its end, the only moments
    at which the loop waits for the device (`on_nonfinite="skip"` waits at every step). `between_batches()` is called
    whenever `state_dict` would give a state from which the run can go on exactly, `after_epoch()` after each. `step`
    and `epoch` count those done, `index` the steps done of the running epoch.
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
    ) -> None:
        self.train_step = train_step
        self.model, self.optimizer, self.device = train_step.model, train_step.optimizer, train_step.device
        self.train_loader, self.val_loader = train_loader, val_loader
        self.epochs, self.log_every = epochs, log_every
        self.log_metrics, self.between_batches, self.after_epoch = log_metrics, between_batches, after_epoch
        self.lr_factors = group_factors(schedule, self.optimizer.param_groups, epochs, len(train_loader))
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.step = self.epoch = self.index = self.num_images = 0
        self.train_seconds = self.eval_seconds = 0.0
        self.train_loss: float | None = None  # the mean of the last whole epoch
        self.watch = Watch(train_step.on_nonfinite, self.device.precision, self.lr_at, len(train_loader))
        self.ways_out = ways_out(self.model, self.device, train_step.accumulate)
        self.epoch_totals, self.window = Totals(), Window()
        self.val_result: Result | None = None
        self.best: Best | None = None

    def fit(self) -> None:
        """Train until `epochs` are done, evaluating on the validation images after each.

        Raises `DivergedError`, after evaluating the last state, when the run learns no more (divergence.py).
        """
        while self.epoch < self.epochs:
            try:
                metrics = self.train_epoch()
            except DivergedError:
                if metrics := self.validate():
                    self.log_metrics(metrics, self.step, self.epoch + 1)
                raise
            self.log_metrics(metrics | self.validate(), self.step, self.epoch + 1)
            self.epoch, self.index, self.epoch_totals = self.epoch + 1, 0, Totals()
            self.after_epoch()
        if self.epochs == 0:
            self.validate()
            self.after_epoch()

    def validate(self) -> Metrics:
        """Evaluate on the validation images, if there are any."""
        if self.val_loader is None:
            return {}
        result = self.val_result = self.evaluate(self.val_loader)
        if self.best is None or result.accuracy > self.best.accuracy:
            self.best = Best(self.epoch + 1 if self.epochs else 0, result.accuracy)
        log.info(f"Accuracy of the model on the validation images: {100 * result.accuracy:.2f} %")
        return {"val/loss": result.loss, "val/accuracy": result.accuracy}

    def test(self, test_loader: Loader, tta: str = "none") -> Evaluation:
        """Evaluate on the test images: once, when all choices are made."""
        result = self.evaluate(test_loader, tta)
        metrics = {"test/loss": result.loss, "test/accuracy": result.accuracy}
        log.info(f"Accuracy of the model on the test images: {100 * result.accuracy:.2f} %")
        if result.tta_accuracy is not None:
            metrics["test/tta_accuracy"] = result.tta_accuracy
            log.info(f"… with test-time augmentation ({tta}): {100 * result.tta_accuracy:.2f} %")
        self.log_metrics(metrics, self.step, self.epoch)
        return result

    def train_epoch(self) -> Metrics:
        """Take the epoch's remaining steps, logging as it goes; return its mean loss, and the fraction correct."""
        self.model.train()
        num_steps, totals = len(self.train_loader), self.epoch_totals
        title = f"Epoch [{self.epoch + 1}/{self.epochs}]"
        batches = self.train_loader.epoch(self.epoch, start=self.index)
        if self.index == 0:
            self.window = Window()
        self.window.go()
        with logging_redirect_tqdm(), progress_bar(batches, title, num_steps, self.index) as bar:
            for inputs, labels in bar:
                lr = self.take_step(inputs, labels)
                if self.index % self.log_every == 0 or self.index == num_steps:
                    metrics = self.read_window()
                    self.log_metrics(metrics | {"lr": lr}, self.step, self.epoch + 1)
                    seconds, num_left = self.train_seconds + self.eval_seconds, self.epochs * num_steps - self.step
                    bar.set_postfix_str(outlook(totals.loss, seconds, self.step, num_left), refresh=False)
                    log.info(f"{title}, Step [{self.index}/{num_steps}] Loss: {totals.loss:.4f}{totals.note}")
                self.between_batches()
        self.window.halt()
        self.watch.end_epoch(self.step, totals, self.train_step.is_finite())
        self.train_loss = totals.loss
        return {"train/epoch_loss": totals.loss, "train/epoch_accuracy": totals.accuracy}

    def take_step(self, inputs: Tensor, labels: Tensor) -> float:
        """Set the learning rate, train on a batch, count it, and return the rate."""
        lr = self.set_lr()
        with explain_out_of_memory("batch_size", len(labels), self.ways_out):
            if self.step == 0:
                self.train_step.find_scale(inputs, labels)
            self.window.add(self.train_step(inputs, labels), len(labels))
        self.step, self.index = self.step + 1, self.index + 1
        return lr

    def set_lr(self) -> float:
        """Set every group's learning rate for the coming step and return the first."""
        lrs = [base_lr * factor(self.step) for base_lr, factor in zip(self.base_lrs, self.lr_factors, strict=True)]
        self.train_step.set_lrs(lrs)
        return lrs[0]

    def lr_at(self, step: int) -> float:
        """Return the first group's learning rate at a step, counted from 0."""
        return self.base_lrs[0] * self.lr_factors[0](step)

    def read_window(self) -> Metrics:
        """Return the means over the steps since the last logged one, which wait for the device, and begin a new window.

        Raises `DivergedError` if the steps that were not finite are the end of the run.
        """
        steps, window = self.window.read(), self.window
        self.train_seconds += window.seconds
        self.num_images += window.num_images
        totals = self.watch.sort_out(steps, self.step - len(steps))
        self.epoch_totals.include(totals)
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

    @torch.inference_mode()
    def evaluate(self, loader: Loader, tta: str = "none") -> Evaluation:
        """Return the plain cross-entropy (no label smoothing) and accuracy over all of the loader's images.

        With test-time augmentation `tta` the accuracy of the averaged logits is there too.
        """
        start = perf_counter()
        self.model.eval()
        loss = torch.zeros((), device=self.device.torch_device)
        predictions, confidences = [], []
        num_correct_tta = torch.zeros((), dtype=torch.int64, device=self.device.torch_device)
        for inputs, labels in progress_bar(loader.epoch(0), "Evaluating", len(loader)):
            with explain_out_of_memory("eval_batch_size", len(labels)), self.device.autocast():
                logits, averaged = self.predict(inputs, tta)
            num_correct_tta += (averaged.argmax(dim=1) == labels).sum()
            loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            predictions.append(logits.argmax(dim=1))
            confidences.append(logits.float().softmax(dim=1).amax(dim=1))
            self.between_batches()
        predicted = torch.cat(predictions)
        correct = int((predicted == loader.labels).sum())  # waits for the device
        self.eval_seconds += perf_counter() - start
        num_images = len(loader.labels)
        tta_accuracy = None if tta == "none" else int(num_correct_tta) / num_images
        confidence = torch.cat(confidences).cpu()
        return Evaluation(float(loss) / num_images, correct / num_images, predicted.cpu(), confidence, tta_accuracy)

    def predict(self, inputs: Tensor, tta: str) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) for inputs (N, C, H, W), and their mean over the views of `tta`."""
        weights, images = zip(*views(inputs, tta), strict=True)
        outputs = [self.model(image) for image in images]
        return outputs[0], sum(weight * output.float() for weight, output in zip(weights, outputs, strict=True))

    def warm_up(self, test_loader: Loader, tta: str) -> float:
        """Have the device compile, record and choose what it needs before the first step; return the seconds.

        It changes no number of the run. A processor that compiles nothing needs none.
        """
        if not self.device.needs_warm_up or self.epoch == self.epochs:
            return 0.0
        self.model.train()
        inputs, labels = next(iter(self.train_loader.epoch(0)))
        sizes = {len(labels), len(self.train_loader.images) % len(labels) or len(labels)}
        seconds = sum(self.train_step.warm_up(inputs[:size], labels[:size]) for size in sorted(sizes, reverse=True))
        start = perf_counter()
        self.model.eval()
        with torch.inference_mode(), self.device.autocast():
            self.predict(next(iter(test_loader.epoch(0)))[0], tta)
        self.device.wait()
        return seconds + perf_counter() - start

    def progress(self) -> dict[str, float | None]:
        """Return how far the run came, its seconds and last and best results, for the summary."""
        progress: dict[str, float | None] = {
            "epochs": self.epoch,
            "steps": self.step,
            "train_seconds": self.train_seconds,
            "eval_seconds": self.eval_seconds,
            "train_loss": self.train_loss,
        }
        if self.watch.num_skipped:
            progress["skipped_steps"] = self.watch.num_skipped
        if self.train_seconds:
            progress["images_per_second"] = self.num_images / self.train_seconds
        if self.val_result is not None and self.best is not None:
            progress |= {"val_loss": self.val_result.loss, "val_accuracy": self.val_result.accuracy}
            progress |= {"best_val_accuracy": self.best.accuracy, "best_val_epoch": self.best.epoch}
        return progress

    def is_finite(self) -> bool:
        """Return whether a run can go on well from the present state, as far as is known; waits for the device."""
        return self.watch.allows(self.window.read()) and self.train_step.is_finite()

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the run's future, and what it has counted so far."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.train_step.optimizer_state_dict(),
            "scaler": self.train_step.scaler.state_dict(),
            "rng": self.device.random_state(),
            "steps_per_epoch": len(self.train_loader),
            "window": self.window.state_dict(),
            "epoch_totals": asdict(self.epoch_totals),
            "val_result": None if self.val_result is None else [self.val_result.loss, self.val_result.accuracy],
            "best": None if self.best is None else asdict(self.best),
            **self.watch.state_dict(),
            **{name: getattr(self, name) for name in COUNTERS},
        }

    def load_state_dict(self, state: dict[str, Any], origin: str) -> None:
        """Go on from what `state_dict` gave; raise `UserError` if it, from the file `origin`, fits another model."""
        load_state(self.model, state["model"], origin)
        self.train_step.load_optimizer(state["optimizer"], state["scaler"])
        self.watch.load_state_dict(state)
        self.device.set_random_state(state["rng"])
        self.window = Window(state["window"], self.device.torch_device)
        self.epoch_totals = Totals(**state["epoch_totals"])
        self.val_result = None if state["val_result"] is None else Result(*state["val_result"])
        self.best = Best(**state["best"]) if state["best"] is not None and state["step"] else None
        for name in COUNTERS:
            setattr(self, name, state[name])


def progress_bar(batches: Iterable[Batch], title: str, num_batches: int, num_done: int = 0) -> "tqdm[Batch]":
    """Return the batches behind a bar that vanishes at the end and is not shown where stderr is not a terminal."""
    return tqdm(
        batches,
        desc=title,
        total=num_batches,
        initial=num_done,
        unit="step",
        leave=False,
        dynamic_ncols=True,
        disable=None,
    )

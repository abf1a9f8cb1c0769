"""The training loop: epochs of steps over one model, and the evaluation of the model."""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cifar.data.loader import Loader
from cifar.device import Device
from cifar.errors import DivergedError
from cifar.schedules import Schedule

log = logging.getLogger(__name__)

Metrics = dict[str, float]
Batch = tuple[Tensor, Tensor]  # inputs (B, C, H, W) and labels (B,)


@dataclass(frozen=True)
class Evaluation:
    """The result on one set of images: mean cross-entropy, fraction correct, and the classes predicted, (N,)."""

    loss: float
    accuracy: float
    predictions: Tensor


class Trainer:
    """Train `model` on `train_loader` for `epochs`, and log.

    `log_metrics(metrics, step, epoch)` is called every `log_every` steps of an epoch and at its end, the only moments
    at which the loop waits for the device. `save()` is called after every epoch. `step` and `epoch` count those done.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        train_loader: Loader,
        val_loader: Loader | None,
        device: Device,
        *,
        epochs: int,
        label_smoothing: float,
        log_every: int,
        log_metrics: Callable[[Metrics, int, int], None],
        save: Callable[[], None],
    ) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self.forward: nn.Module = torch.compile(model) if device.compile else model  # type: ignore[assignment]
        self.train_loader, self.val_loader = train_loader, val_loader
        self.epochs, self.label_smoothing, self.log_every = epochs, label_smoothing, log_every
        self.log_metrics, self.save = log_metrics, save
        self.lr_factor = schedule.over(epochs * len(train_loader), len(train_loader))
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.step = self.epoch = self.num_images = 0
        self.train_seconds = self.eval_seconds = 0.0
        self.val_result: Evaluation | None = None

    def fit(self) -> None:
        """Train until `epochs` are done, evaluating on the validation images after each, and save."""
        while self.epoch < self.epochs:
            metrics = self.train_epoch()
            self.epoch += 1
            self.log_metrics(metrics | self.validate(), self.step, self.epoch)
            self.save()
        if self.epochs == 0:
            self.validate()
            self.save()

    def validate(self) -> Metrics:
        """Evaluate on the validation images, if there are any."""
        if self.val_loader is None:
            return {}
        self.val_result = self.evaluate(self.val_loader)
        log.info(f"Accuracy of the model on the validation images: {100 * self.val_result.accuracy:.2f} %")
        return {"val/loss": self.val_result.loss, "val/accuracy": self.val_result.accuracy}

    def test(self, test_loader: Loader) -> Evaluation:
        """Evaluate on the test images: once, when all choices are made."""
        result = self.evaluate(test_loader)
        self.log_metrics({"test/loss": result.loss, "test/accuracy": result.accuracy}, self.step, self.epoch)
        log.info(f"Accuracy of the model on the test images: {100 * result.accuracy:.2f} %")
        return result

    def train_epoch(self) -> Metrics:
        """Take the epoch's steps, logging as it goes; return the epoch's mean loss, and the fraction correct."""
        self.model.train()
        num_steps, start = len(self.train_loader), perf_counter()
        title = f"Epoch [{self.epoch + 1}/{self.epochs}]"
        epoch, window = Tally(), Tally()
        bar = progress_bar(self.train_loader.epoch(self.epoch), title, num_steps)
        with logging_redirect_tqdm(), bar:
            for index, (inputs, labels) in enumerate(bar, start=1):
                lr = self.set_lr()
                window.add(*self.train_step(inputs, labels), labels)
                self.step += 1
                if index % self.log_every == 0 or index == num_steps:
                    window.read()  # waits for the device
                    self.check_finite(window.loss, lr)
                    self.log_metrics({
                        "train/loss": window.loss,
                        "train/accuracy": window.accuracy,
                        "train/images_per_second": window.images_per_second,
                        "lr": lr,
                    }, self.step, self.epoch + 1)  # fmt: skip
                    epoch.include(window)
                    window = Tally()
                    log.info(f"{title}, Step [{index}/{num_steps}] Loss: {epoch.loss:.4f}")
        self.train_seconds += perf_counter() - start
        self.num_images += epoch.num_images
        return {"train/epoch_loss": epoch.loss, "train/epoch_accuracy": epoch.accuracy}

    def train_step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one optimizer step on inputs (B, C, H, W) and labels (B,); return the loss, (), and logits (B, K)."""
        with self.device.autocast():
            logits = self.forward(inputs)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach(), logits.detach()

    def set_lr(self) -> float:
        """Set every group's learning rate for the coming step and return the first."""
        lrs = [base_lr * self.lr_factor(self.step) for base_lr in self.base_lrs]
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        return lrs[0]

    def check_finite(self, loss: float, lr: float) -> None:
        """Raise `DivergedError` if the mean loss of the last steps is not finite."""
        if not math.isfinite(loss):
            raise DivergedError(
                f"Training diverged: the loss is {loss} by step {self.step} (epoch {self.epoch + 1}) at lr={lr:g}. "
                "Try a smaller lr, or schedule=cosine with schedule.warmup_epochs=1."
            )

    @torch.inference_mode()
    def evaluate(self, loader: Loader) -> Evaluation:
        """Return the plain cross-entropy (no label smoothing) and accuracy over all of the loader's images."""
        start = perf_counter()
        self.model.eval()
        loss = torch.zeros((), device=self.device.torch_device)
        predictions = []
        for inputs, labels in progress_bar(loader.epoch(0), "Evaluating", len(loader)):
            with self.device.autocast():
                logits = self.model(inputs)
            loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            predictions.append(logits.argmax(dim=1))
        predicted = torch.cat(predictions)
        correct = int((predicted == loader.labels).sum())  # waits for the device
        self.eval_seconds += perf_counter() - start
        num_images = len(loader.labels)
        return Evaluation(float(loss) / num_images, correct / num_images, predicted.cpu())

    def progress(self) -> dict[str, float]:
        """Return how far the run came, its seconds and last validation result, for the summary."""
        progress = {
            "epochs": self.epoch,
            "steps": self.step,
            "train_seconds": self.train_seconds,
            "eval_seconds": self.eval_seconds,
        }
        if self.train_seconds:
            progress["images_per_second"] = self.num_images / self.train_seconds
        if self.val_result is not None:
            progress |= {"val_loss": self.val_result.loss, "val_accuracy": self.val_result.accuracy}
        return progress

    def state_dict(self) -> dict[str, Any]:
        """Return what decides the run's future: weights, optimizer, counters, and torch's random state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "rng": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
        }


def progress_bar(batches: Iterable[Batch], title: str, num_batches: int) -> "tqdm[Batch]":
    """Return the batches behind a bar that vanishes at the end and is not shown where stderr is not a terminal."""
    return tqdm(batches, desc=title, total=num_batches, unit="step", leave=False, dynamic_ncols=True, disable=None)


class Tally:
    """Sums over steps. `add` leaves them on the device; `read` waits for it and brings them to the host."""

    def __init__(self) -> None:
        self.pending: Tensor | None = None  # (2,): sum of the losses, images classified correctly
        self.loss_sum = self.num_correct = self.seconds = 0.0
        self.num_steps = self.num_images = 0
        self.start = perf_counter()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one step: its mean loss, (), logits (B, K) and labels (B,)."""
        correct = (logits.argmax(dim=1) == labels).sum()
        sums = torch.stack([loss.float(), correct.float()])
        self.pending = sums if self.pending is None else self.pending + sums
        self.num_steps += 1
        self.num_images += len(labels)

    def read(self) -> None:
        """Bring what was added to the host, and stop the clock."""
        if self.pending is not None:
            loss_sum, num_correct = self.pending.tolist()
            self.loss_sum += loss_sum
            self.num_correct += num_correct
            self.pending = None
        self.seconds = perf_counter() - self.start

    def include(self, other: "Tally") -> None:
        """Add the sums of a tally that was read."""
        self.loss_sum += other.loss_sum
        self.num_correct += other.num_correct
        self.num_steps += other.num_steps
        self.num_images += other.num_images
        self.seconds += other.seconds

    @property
    def loss(self) -> float:
        """Mean over steps."""
        return self.loss_sum / self.num_steps

    @property
    def accuracy(self) -> float:
        """Fraction of the images classified correctly."""
        return self.num_correct / self.num_images

    @property
    def images_per_second(self) -> float:
        """Images over the time between construction and `read`."""
        return self.num_images / self.seconds

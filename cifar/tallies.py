"""What a trainer measures: single steps, sums over steps, results on a set of images."""

import math
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm


@dataclass(frozen=True)
class Result:
    """The result on one set of images: mean cross-entropy and fraction correct."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation(Result):
    """A result with the classes predicted, (N,), and their softmax probabilities, (N,).

    `tta_accuracy` is the fraction correct with test-time augmentation, None without.
    """

    predictions: Tensor
    confidences: Tensor
    tta_accuracy: float | None = None

    def facts(self) -> dict[str, float]:
        """Return what the summary says of the test images."""
        facts = {"test_loss": self.loss, "test_accuracy": self.accuracy}
        return facts if self.tta_accuracy is None else facts | {"test_tta_accuracy": self.tta_accuracy}


@dataclass(frozen=True)
class Best:
    """The epoch, counted from 1, after which the validation accuracy was best for the first time."""

    epoch: int
    accuracy: float


class Window:
    """The steps since the last logged one. What they measured stays on the device until `read`."""

    def __init__(self, state: dict[str, Any] | None = None, device: torch.device | None = None) -> None:
        self.rows: list[Tensor] = []  # per step, (3,): loss, images classified correctly, norm of the gradient
        self.num_images, self.seconds, self.start = 0, 0.0, perf_counter()
        if state is not None:
            self.rows, self.num_images = [*state["rows"].to(device)], state["num_images"]
            self.start -= state["seconds"]

    def add(self, row: Tensor, num_images: int) -> None:
        """Count one step."""
        self.rows.append(row)
        self.num_images += num_images

    def read(self) -> list[list[float]]:
        """Return the rows, which waits for the device, and stop the clock."""
        rows: list[list[float]] = torch.stack(self.rows).tolist()
        self.seconds = perf_counter() - self.start
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return what the constructor takes, on the CPU."""
        rows = torch.stack(self.rows).cpu() if self.rows else torch.empty((0, 3))
        return {"rows": rows, "num_images": self.num_images, "seconds": perf_counter() - self.start}


@dataclass
class Totals:
    """Sums over the finite ones of some steps, and the images of all of them."""

    num_steps: int = 0
    num_images: int = 0
    loss_sum: float = 0.0
    num_correct: float = 0.0
    norm_sum: float = 0.0

    def include(self, other: "Totals") -> None:
        """Add another's sums."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def loss(self) -> float:
        """Mean over the finite steps, NaN without any."""
        return self.loss_sum / self.num_steps if self.num_steps else math.nan

    @property
    def accuracy(self) -> float:
        """Fraction of the images classified correctly."""
        return self.num_correct / self.num_images

    @property
    def grad_norm(self) -> float:
        """Mean over the finite steps, NaN without any."""
        return self.norm_sum / self.num_steps if self.num_steps else math.nan


def outlook(loss: float, seconds: float, num_done: int, num_left: int) -> str:
    """Return what a progress bar says of the whole run: its loss, and the time left if the steps go on as they did."""
    return f"loss {loss:.4f}, the run ends in {tqdm.format_interval(seconds / num_done * num_left)}"

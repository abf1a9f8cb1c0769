"""Smith's range test: training at rates that rise from step to step (arXiv:1506.01186, section 3.3)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from torch import Tensor

from cifar.data.loader import Loader
from cifar.training.steps.step import TrainingStep

SMOOTHING = 0.9  # the share of the losses before in a smoothed loss
BLOWN_UP = 4.0  # times the lowest smoothed loss, after which nothing more is learnt of higher rates


@dataclass(frozen=True)
class RangeTest:
    """The rates tried, and the losses: of each step, infinite where it was not finite, and smoothed."""

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    num_planned: int

    @property
    def lowest(self) -> float:
        """The rate of the lowest smoothed loss."""
        return self.lrs[self.smoothed.index(min(self.smoothed))]

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls most, per factor of the rate, before its lowest; None: never."""
        end = self.smoothed.index(min(self.smoothed))
        slopes = [self.smoothed[index + 1] - self.smoothed[index - 1] for index in range(1, end)]
        return self.lrs[1 + slopes.index(min(slopes))] if slopes and min(slopes) < 0 else None

    @property
    def has_blown_up(self) -> bool:
        """Whether the test ended because the loss rose, and not because all rates had been tried."""
        return len(self.lrs) < self.num_planned


def rates(low: float, high: float, num_steps: int) -> list[float]:
    """Return that many rates from low to high, each the same multiple of the one before."""
    return [low * (high / low) ** (index / (num_steps - 1)) for index in range(num_steps)]


def range_test(
    step: TrainingStep, loader: Loader, lrs: list[float], after_step: Callable[[], None] = lambda: None
) -> RangeTest:
    """Train at each of the rates for one step; weights, statistics, optimizer and random state are then as before.

    Groups of weights keep the ratios of their rates. It ends early when the loss has blown up. Waits for the device at
    every step.
    """
    before = [float(group["lr"]) for group in step.optimizer.param_groups]
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    was_training = step.model.training
    with step.unchanged():
        step.model.train()
        for lr, (inputs, labels, size) in zip(lrs, endless(loader), strict=False):
            step.set_lrs([lr * rate / before[0] for rate in before])
            if not losses:
                step.find_scale(inputs, labels, size)
            loss = step(inputs, labels, size)[0].item()
            if not math.isfinite(loss):
                break
            losses.append(loss)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smoothed.append(mean / (1 - SMOOTHING ** len(losses)))
            if smoothed[-1] > BLOWN_UP * min(smoothed):
                break
            after_step()
    step.model.train(was_training)
    return RangeTest(lrs[: len(losses)], losses, smoothed, len(lrs))


def endless(loader: Loader) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield the batches of one epoch after another, each with the number of its images in all processes."""
    for epoch in count():
        for index, (inputs, labels) in enumerate(loader.epoch(epoch)):
            yield inputs, labels, loader.size_of(index)

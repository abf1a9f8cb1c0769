"""Learning-rate schedules: `cifar run schedule=cosine schedule.warmup_epochs=0.5`.

A schedule turns epochs into steps once and then maps a step, counted from 0, to a factor on the learning rate. It
keeps no state, so a resumed run needs only its step.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cifar.base.errors import UserError
from cifar.base.limits import number, refuse_impossible

Factor = Callable[[int], float]

MAX_EPOCHS = 1_000_000  # more are a slip of the finger, and their steps no number
MAX_DECADES = 38  # of float32, between 1 and its largest number
LIMITS = {
    "every_epochs": number(f"a positive number of at most {MAX_EPOCHS:,}", lambda value: 0 < value <= MAX_EPOCHS),
    "factor": number("a positive number", lambda value: value > 0),
    "warmup_epochs": number(f"a number from 0 to {MAX_EPOCHS:,}", lambda value: 0 <= value <= MAX_EPOCHS),
    "final_factor": number("a number from 0 to 1", lambda value: 0 <= value <= 1),
}


class Schedule(Protocol):
    """What the trainer asks of a schedule."""

    def over(self, total_steps: int, steps_per_epoch: int) -> Factor:
        """Return the factor on the learning rate as a function of the step in 0 … total_steps - 1."""


@dataclass(frozen=True)
class Constant:
    """Keep the learning rate."""

    def over(self, total_steps: int, steps_per_epoch: int) -> Factor:
        """Return the factor 1."""
        return lambda step: 1.0


@dataclass(frozen=True)
class Step:
    """Multiply the learning rate by `factor` every `every_epochs` epochs."""

    every_epochs: float
    factor: float

    def __post_init__(self) -> None:
        refuse_impossible("schedule", vars(self), LIMITS)

    def over(self, total_steps: int, steps_per_epoch: int) -> Factor:
        """Return factor ** (number of whole periods before the step); a period has at least one step.

        Raises `UserError` if that grows beyond all numbers.
        """
        period_steps = max(1, round(self.every_epochs * steps_per_epoch))
        num_periods = max(0, total_steps - 1) // period_steps
        if num_periods * math.log10(self.factor) > MAX_DECADES:
            raise UserError(
                f"schedule.factor={self.factor!r} is not possible {num_periods} times in one run, as "
                f"schedule.every_epochs={self.every_epochs!r} has it: the learning rate would become infinite."
            )
        return lambda step: self.factor ** (step // period_steps)


@dataclass(frozen=True)
class Falling:
    """Rise linearly for `warmup_epochs`, then fall to `final_factor` along the curve of a subclass.

    The first step of W warm-up steps has the factor 1/W and the last 1. The first step after them has 1, and the
    step after the run's last one would have `final_factor`.
    """

    warmup_epochs: float = 0.0
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        refuse_impossible("schedule", vars(self), LIMITS)

    def curve(self, progress: float) -> float:
        """Return the height, 1 … 0, at a progress of 0 … 1."""
        raise NotImplementedError

    def over(self, total_steps: int, steps_per_epoch: int) -> Factor:
        """Return the factor; raise `UserError` if the warm-up has more steps than there are."""
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if 0 < total_steps < warmup_steps:
            raise UserError(
                f"schedule.warmup_epochs={self.warmup_epochs!r} is {warmup_steps} steps, "
                f"but there are only {total_steps}: shorten it or raise epochs."
            )

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)  # 0 … 1
            return self.final_factor + (1 - self.final_factor) * self.curve(progress)

        return factor


@dataclass(frozen=True)
class Cosine(Falling):
    """Half a cosine (Loshchilov & Hutter, arXiv:1608.03983)."""

    def curve(self, progress: float) -> float:
        """Return the height, 1 … 0, at a progress of 0 … 1."""
        return (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Linear(Falling):
    """A straight line."""

    def curve(self, progress: float) -> float:
        """Return the height, 1 … 0, at a progress of 0 … 1."""
        return 1 - progress


def factor_until(schedule: Schedule, epochs: float, steps_per_epoch: int) -> Factor:
    """Return the factor on the learning rate of weights that are trained for `epochs`, after which it is 0."""
    num_steps = round(epochs * steps_per_epoch)
    factor = schedule.over(num_steps, steps_per_epoch)
    return lambda step: factor(step) if step < num_steps else 0.0


def group_factors(
    schedule: Schedule, groups: Iterable[Mapping[str, Any]], epochs: int, steps_per_epoch: int
) -> list[Factor]:
    """Return the factor of each of an optimizer's groups of weights: over its own `epochs`, if it has some.

    Raises `UserError`, naming the group, if the schedule does not fit into them.
    """
    factors = []
    for group in groups:
        own_epochs = min(epochs, group.get("epochs", epochs))
        try:
            factors.append(factor_until(schedule, own_epochs, steps_per_epoch))
        except UserError as error:
            if own_epochs == epochs:
                raise
            raise UserError(
                f"optimizer.groups: names={group.get('names')!r} is trained for {own_epochs} of the run's {epochs} "
                f"epochs, with a schedule of its own. {error}"
            ) from error
    return factors


class LearningRates:
    """The learning rates of an optimizer's groups of weights, from those that they have now, over a run's steps.

    Raises `UserError`, naming the group, if the schedule does not fit into its epochs.
    """

    def __init__(
        self, schedule: Schedule, groups: Sequence[Mapping[str, Any]], epochs: int, steps_per_epoch: int
    ) -> None:
        self.base_lrs = [float(group["lr"]) for group in groups]
        self.factors = group_factors(schedule, groups, epochs, steps_per_epoch)

    def at(self, step: int) -> list[float]:
        """Return the rate of each group at a step, counted from 0."""
        return [base_lr * factor(step) for base_lr, factor in zip(self.base_lrs, self.factors, strict=True)]

"""When a run has diverged, and which of its steps count.

With `on_nonfinite=stop` that is the first step whose loss or gradient is not finite. With `skip` such steps are not
taken, and the run has diverged when `MAX_IN_A_ROW` of them follow each other or more than half of an epoch's steps are
skipped: it learns no more. In fp16 a gradient may be too large only because its loss is scaled (`Step.is_overflow`);
such a step is neither a divergence nor counted as skipped, until `MAX_IN_A_ROW` of them follow each other.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from cifar.base.errors import DivergedError
from cifar.training.measures.tallies import Step, Totals

MAX_IN_A_ROW = 10
LESS = "Try a smaller lr, or schedule=cosine with schedule.warmup_epochs=1"
RANGE = "fp16 holds numbers up to 65504 only: device.precision=bf16 or fp32 holds larger ones"


class Watch:
    """Sort out the steps that are not finite, and raise `DivergedError` when that is the end of a run.

    `lr_at(step)` is the learning rate of a step, counted from 0.
    """

    def __init__(self, on_nonfinite: str, precision: str, lr_at: Callable[[int], float], steps_per_epoch: int) -> None:
        self.on_nonfinite, self.precision, self.lr_at = on_nonfinite, precision, lr_at
        self.steps_per_epoch = steps_per_epoch
        self.num_skipped = self.num_in_a_row = 0
        self.last_loss: float | None = None  # the last finite one
        self.has_diverged = False

    def sort_out(self, steps: Sequence[Step], first_step: int) -> Totals:
        """Return the sums over the finite ones of the steps, which follow the `first_step` first of the run."""
        finite, num_skipped = [], self.num_skipped
        for number, step in enumerate(steps, start=first_step + 1):
            if step.is_finite:
                finite.append(step)
                self.last_loss, self.num_in_a_row = step.loss, 0
                continue
            if not self.allows([step]):
                self.raise_diverged(number, described(step))
            self.num_in_a_row += 1
            self.num_skipped += not step.is_overflow
            if self.num_in_a_row == MAX_IN_A_ROW:
                self.raise_diverged(number, f"{MAX_IN_A_ROW} steps in a row were skipped; {described(step)}")
        return Totals.of(finite, self.num_skipped - num_skipped)

    def allows(self, steps: Sequence[Step]) -> bool:
        """Return whether none of the steps alone is the end of the run."""
        return self.on_nonfinite == "skip" or all(step.is_finite or step.is_overflow for step in steps)

    def end_epoch(self, step: int, totals: Totals, is_finite: bool) -> None:
        """Raise if the epoch that ends with the `step`-th step had too few finite steps, or weights are not finite."""
        if 2 * totals.num_skipped > self.steps_per_epoch:
            share = f"{totals.num_skipped} of the epoch's {self.steps_per_epoch} steps"
            self.raise_diverged(step, f"{share} were not finite and were skipped, counted")
        if not is_finite:
            self.raise_diverged(step, "the weights or the optimizer's state are no longer finite")

    def verdict(self, test_loss: float, step: int) -> DivergedError | None:
        """Return the error of a run whose model, after `step` steps, gives no finite loss on the test images."""
        if math.isfinite(test_loss):
            return None
        return DivergedError(
            f"The loss on the test images is {test_loss} after {step} steps: the weights, or what they give, are "
            f"beyond the range of numbers.{f' {RANGE}.' if self.precision == 'fp16' else ''}",
            {"last_finite_loss": self.last_loss},
        )

    def raise_diverged(self, step: int, what: str) -> None:
        """Raise `DivergedError` for the `step`-th step, counted from 1."""
        self.has_diverged = True
        lr, epoch = self.lr_at(step - 1), (step - 1) // self.steps_per_epoch + 1
        last = "no loss was finite" if self.last_loss is None else f"the last finite loss was {self.last_loss:.4f}"
        advice = f"{LESS}, or on_nonfinite=skip." if self.on_nonfinite == "stop" else f"{LESS}."
        raise DivergedError(
            f"Training diverged: {what} at step {step} (epoch {epoch}) at lr={lr:g}; {last}. "
            f"{advice}{f' {RANGE}.' if self.precision == 'fp16' else ''}",
            {"diverged_step": step, "diverged_lr": lr, "last_finite_loss": self.last_loss},
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {"num_skipped": self.num_skipped, "num_in_a_row": self.num_in_a_row, "last_loss": self.last_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.num_skipped, self.num_in_a_row = state["num_skipped"], state["num_in_a_row"]
        self.last_loss = state["last_loss"]


def described(step: Step) -> str:
    """Return what is wrong with a step."""
    if not math.isfinite(step.loss):
        return f"the loss is {step.loss}"
    scaled = f" of the loss times {step.scale:g}" if step.scale > 1 else ""
    return f"the norm of the gradient{scaled} is {step.norm}"

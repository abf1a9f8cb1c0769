"""Weights averaged over a run's steps: `cifar run average=ema`.

An average never touches the training: the weights of the last step are to the last bit those of a run without it. What
the configuration says is turned into steps once, by `over`; the averages themselves are torch's `AveragedModel`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from cifar.base.errors import UserError
from cifar.base.limits import FLAG, Limit, number, refuse_impossible, whole_number

RESULTS = ("averaged", "last")
STATISTICS = ("recomputed", "averaged")
LIMITS = {
    "decay": number("a number from 0 to less than 1", lambda value: 0 <= value < 1),
    "warmup": FLAG,
    "every_steps": whole_number(1, 1_000_000, " of steps"),
    "every_epochs": number("a positive number of epochs", lambda value: value > 0),
    "start": number("a number from 0 to less than 1, a fraction of the run", lambda value: 0 <= value < 1),
    "count": whole_number(1, 100, " of snapshots"),
    "statistics": Limit("one of " + ", ".join(STATISTICS), lambda value: value in STATISTICS),
    "result": Limit("one of " + ", ".join(RESULTS), lambda value: value in RESULTS),
}


@dataclass
class Averaged:
    """The average of a model's weights, into which those after each step that is `due`, counted from 1, are taken.

    `is_result` says whether it is what the run is for. `recomputes` says whether its batch norms get statistics of
    their own before it is evaluated; `is_ready` whether they have them.
    """

    inner: AveragedModel
    due: Callable[[int], bool]
    is_result: bool
    recomputes: bool
    is_ready: bool = False

    @property
    def model(self) -> nn.Module:
        """The model with the averaged weights."""
        module: nn.Module = self.inner.module
        return module

    @property
    def has_begun(self) -> bool:
        """Whether any weights have been taken in."""
        return int(self.inner.n_averaged) > 0  # a number on the CPU

    def after_step(self, model: nn.Module, step: int) -> None:
        """Take the model's weights in if the `step`-th step is one after which that is due."""
        if self.due(step):
            self.inner.update_parameters(model)
            self.is_ready = not self.recomputes

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"state": self.inner.state_dict(), "is_ready": self.is_ready, "is_result": self.is_result}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.inner.load_state_dict(state["state"])
        self.is_ready = state["is_ready"]


Due = Callable[[int], bool]


class Average(Protocol):
    """What the trainer asks of a choice of average."""

    def due(self, total_steps: int, steps_per_epoch: int) -> Due:
        """Return whether the weights after a step, counted from 1, are taken in, in a run of so many steps."""

    def over(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> Averaged | None:
        """Return the average of a model over a run of so many steps; None: there is none."""


@dataclass(frozen=True)
class NoAverage:
    """The weights of the last step are all there is."""

    def due(self, total_steps: int, steps_per_epoch: int) -> Due:
        """Return never."""
        return lambda step: False

    def over(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> None:
        """Return None."""


@dataclass(frozen=True)
class EMA:
    """The exponential moving average of the weights after every `every_steps`-th step.

    With `warmup` the decay of the n-th update is at most (1 + n) / (10 + n), so that the first weights are soon
    forgotten, as TensorFlow's ExponentialMovingAverage has it.
    """

    decay: float
    warmup: bool
    every_steps: int
    statistics: str
    result: str

    def __post_init__(self) -> None:
        refuse_impossible("average", vars(self), LIMITS)

    def due(self, total_steps: int, steps_per_epoch: int) -> Due:
        """Return every so often."""
        return lambda step: step % self.every_steps == 0

    def over(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> Averaged:
        """Return the average; raise `UserError` if the run is too short for it."""
        recomputes = self.statistics == "recomputed"
        inner = AveragedModel(model, use_buffers=not recomputes)

        def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Any) -> None:
            number = int(inner.n_averaged)  # `num_averaged` is it on the device, for which one would have to wait
            decay = min(self.decay, (1 + number) / (10 + number)) if self.warmup else self.decay
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(averaged, current, 1 - decay)
            else:
                torch._foreach_copy_(averaged, current)  # a count of batches

        inner.multi_avg_fn = update  # type: ignore[assignment]
        refuse_too_rare("average.every_steps", self.every_steps, self.every_steps, total_steps)
        return Averaged(inner, self.due(total_steps, steps_per_epoch), self.result == RESULTS[0], recomputes)


@dataclass(frozen=True)
class SWA:
    """The mean of the weights at every `every_epochs`, once the fraction `start` of the run is over.

    The last step's are always among them: periods are counted from the run's end. Izmailov et al., arXiv:1803.05407,
    who keep or cycle the learning rate meanwhile.
    """

    start: float
    every_epochs: float
    result: str

    def __post_init__(self) -> None:
        refuse_impossible("average", vars(self), LIMITS)

    def due(self, total_steps: int, steps_per_epoch: int) -> Due:
        """Return every so often, from the beginning of the last part on."""
        first, period = int(self.start * total_steps), max(1, round(self.every_epochs * steps_per_epoch))
        return lambda step: step > first and (total_steps - step) % period == 0

    def over(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> Averaged:
        """Return the average."""
        inner = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())
        return Averaged(inner, self.due(total_steps, steps_per_epoch), self.result == RESULTS[0], recomputes=True)


@dataclass(frozen=True)
class LAWA:
    """The mean of the latest `count` snapshots, one after every `every_epochs` (Kaddour, arXiv:2209.14981)."""

    count: int
    every_epochs: float
    result: str

    def __post_init__(self) -> None:
        refuse_impossible("average", vars(self), LIMITS)

    def due(self, total_steps: int, steps_per_epoch: int) -> Due:
        """Return every so often."""
        period = max(1, round(self.every_epochs * steps_per_epoch))
        return lambda step: step % period == 0

    def over(self, model: nn.Module, total_steps: int, steps_per_epoch: int) -> Averaged:
        """Return the average; raise `UserError` if the run is too short for it."""
        period, inner = max(1, round(self.every_epochs * steps_per_epoch)), Latest(model, self.count)
        refuse_too_rare("average.every_epochs", self.every_epochs, period, total_steps)
        return Averaged(inner, self.due(total_steps, steps_per_epoch), self.result == RESULTS[0], recomputes=True)


class Latest(AveragedModel):
    """The mean of a model's latest `count` weights, all of which it keeps."""

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__(model)
        self.snapshots: deque[list[Tensor]] = deque(maxlen=count)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in a snapshot of the model; the oldest is forgotten if there are too many."""
        self.snapshots.append([weight.detach().clone() for weight in model.parameters()])
        for weight, values in zip(self.module.parameters(), zip(*self.snapshots, strict=True), strict=True):
            weight.copy_(torch.stack(values).mean(dim=0))
        for buffer, value in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(value)
        self.n_averaged += 1

    def get_extra_state(self) -> dict[str, Any]:
        """Return the snapshots, which stand in the state_dict too."""
        return {"snapshots": [[*snapshot] for snapshot in self.snapshots]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_extra_state` gave."""
        device = next(self.module.parameters()).device
        self.snapshots.clear()
        self.snapshots.extend([tensor.to(device) for tensor in snapshot] for snapshot in state["snapshots"])


def refuse_too_rare(key: str, value: float, first_step: int, total_steps: int) -> None:
    """Raise `UserError` if not even the first weights would be taken in, unless nothing is trained."""
    if 0 < total_steps < first_step:
        raise UserError(
            f"{key}={value} is not possible: the first weights would be averaged after step {first_step}, but there "
            f"are only {total_steps}."
        )

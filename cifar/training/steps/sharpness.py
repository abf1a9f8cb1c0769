"""Sharpness-aware minimisation: `cifar run optimizer=sam`, around any optimizer that conf/optimizer/sam.yaml names.

A step computes the gradient twice: where the weights are, and where that gradient leads uphill, to the worst loss
nearby as far as a linear model knows. The base optimizer takes its step with the second gradient, from where the
weights were (Foret et al., arXiv:2010.01412, algorithm 1).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from cifar.base.errors import UserError
from cifar.base.limits import FLAG, number, refuse_impossible
from cifar.training.devices.device import Device
from cifar.training.optimizers import LIMITS as OPTIMIZERS_LIMITS
from cifar.training.optimizers import gradient
from cifar.training.steps.step import TrainingStep

LIMITS = OPTIMIZERS_LIMITS | {
    "rho": number("a positive number", lambda value: value > 0),
    "eta": number("a number from 0", lambda value: value >= 0),
    "adaptive": FLAG,
}
TINY = 1e-12  # added to a norm that may be 0


class SAM(Optimizer):
    """A base optimizer whose gradients are to be taken at a distance `rho` uphill.

    `base` makes the optimizer of weights and lr. With `adaptive` the distance is measured in units of each weight's
    size, |w| + `eta` (Kwon et al., arXiv:2102.11600). `climb` goes uphill and returns what `descend` takes.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        rho: float,
        adaptive: bool,
        eta: float,
        base: Callable[..., Optimizer],
    ) -> None:
        refuse_impossible("optimizer", {"lr": lr, "rho": rho, "adaptive": adaptive, "eta": eta}, LIMITS)
        refuse_impossible("optimizer.base", getattr(base, "keywords", {}), LIMITS)
        if not callable(base):
            raise UserError("optimizer.base takes an optimizer's _target_ with _partial_: true.")

        self.base = base([*params], lr=lr)
        super().__init__(self.base.param_groups, self.base.defaults)
        self.rho, self.adaptive, self.eta = rho, adaptive, eta

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take the base optimizer's step."""
        return self.base.step(closure)

    @torch.no_grad()
    def climb(self) -> list[tuple[Tensor, Tensor]]:
        """Move all weights that have a gradient by `rho` along it, and return them with their values before."""
        weights = [weight for group in self.base.param_groups for weight in group["params"] if weight.grad is not None]
        before = [(weight, weight.clone()) for weight in weights]
        sizes = [weight.abs() + self.eta if self.adaptive else torch.ones_like(weight) for weight in weights]
        directions = [size * gradient(weight) for size, weight in zip(sizes, weights, strict=True)]
        scale = self.rho / (get_total_norm(directions) + TINY)
        for weight, size, direction in zip(weights, sizes, directions, strict=True):
            weight.add_(size * direction * scale.to(weight))
        return before

    @staticmethod
    @torch.no_grad()
    def descend(before: list[tuple[Tensor, Tensor]]) -> None:
        """Put the weights back to the last bit."""
        for weight, value in before:
            weight.copy_(value)


class SharpnessAwareStep(TrainingStep):
    """A step whose gradient is that uphill. Running statistics, loss and accuracy are those of the first pass.

    In fp16 both gradients are those of the scaled loss, which changes nothing: the way uphill has the length `rho`. The
    sums over ranks and parts of a batch are complete before the way uphill is taken, so it is the whole batch's.
    """

    def __init__(self, model: nn.Module, optimizer: SAM, device: Device, **options: Any) -> None:
        if device.graph:
            raise UserError(
                "device.graph=true is not possible with optimizer=sam, whose two passes can't be recorded as one step. "
                "device.compile=true is."
            )
        super().__init__(model, optimizer.base, device, **options)
        self.sam = optimizer

    def total_gradient(self, inputs: Tensor, labels: Tensor, num_images: int) -> Tensor:
        """Compute the gradient of all ranks uphill; return loss and number correct of the first pass, (2,)."""
        found = super().total_gradient(inputs, labels, num_images)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        before = self.sam.climb()
        super().total_gradient(inputs, labels, num_images)
        self.sam.descend(before)
        for buffer, value in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(value)
        return found

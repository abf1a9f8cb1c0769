"""Batch norm in several processes: statistics of each one's own images, or of all of them together.

With statistics of its own every rank normalises its part of a batch, as one device does with `accumulate`. The running
statistics, which evaluation uses, are then what that device would have. With `device.sync_batch_norm=true` a batch is
normalised as a whole, as one device does without `accumulate`. torch's SyncBatchNorm does that on GPUs only; this one
works wherever ranks do.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar.training.distributed import Ranks


class Running:
    """Keep running statistics as one device would that saw the ranks' parts of a batch one after another."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.ranks = ranks
        self.norms = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None and not is_synchronised(module)
        ]
        self.before: list[tuple[_BatchNorm, list[Tensor], Tensor]] = []

    def begin(self) -> None:
        """Remember what there is before a part of a batch goes through the model."""
        if self.ranks.are_several:
            self.before = [
                (norm, [values.clone() for values in statistics(norm)], counter(norm).clone())
                for norm in self.norms
                if norm.training
            ]

    @torch.no_grad()
    def end(self, counts: Sequence[int]) -> None:
        """Join what the ranks found, of which each had that many images of the part."""
        if not self.ranks.are_several or not self.before:
            return
        has_images = [count > 0 for count in counts]
        num_seen, num_after = sum(has_images), sum(has_images[self.ranks.rank + 1 :])
        shares = []
        for norm, old, number in self.before:
            keeps, weight, whole = factors(norm, number, num_seen, num_after)
            for values, value in zip(statistics(norm), old, strict=True):
                own = (values - keeps * value) * weight if has_images[self.ranks.rank] else torch.zeros_like(values)
                shares.append(own)
                values.copy_(whole * value)
            counter(norm).copy_(number + num_seen)
        self.ranks.add(shares)
        places = [values for norm, _, _ in self.before for values in statistics(norm)]
        for values, share in zip(places, shares, strict=True):
            values.add_(share)
        self.before = []


def statistics(norm: _BatchNorm) -> list[Tensor]:
    """Return the running mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return [norm.running_mean, norm.running_var]


def counter(norm: _BatchNorm) -> Tensor:
    """Return the number of batches seen."""
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked


def factors(norm: _BatchNorm, number: Tensor, num_seen: int, num_after: int) -> tuple[Any, Any, Any]:
    """Return how much of the old values one part keeps, what a rank's own share counts for, and what is kept in all.

    `number` of batches were seen before, then `num_seen` parts, `num_after` of them after the rank's own.
    """
    if norm.momentum is None:  # the mean over all batches
        number = number.double()
        return number / (number + 1), (number + 1) / (number + num_seen), number / (number + num_seen)
    keeps = 1 - norm.momentum
    return keeps, keeps**num_after, keeps**num_seen


def synchronise(model: nn.Module) -> None:
    """Let every batch norm of the model average over all ranks' images; parameters and keys stay what they are."""
    uncompiled = {"forward": torch.compiler.disable(Synchronised.forward)}  # here, as this imports the whole compiler
    for module in model.modules():
        if isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward:
            module.__class__ = type(f"Synchronised{type(module).__name__}", (Synchronised, type(module)), uncompiled)


def is_synchronised(module: nn.Module) -> bool:
    """Return whether it is a batch norm that averages over all ranks' images."""
    return isinstance(module, Synchronised)


class Synchronised(_BatchNorm):
    """What `synchronise` makes of an ordinary batch norm."""

    def forward(self, inputs: Tensor) -> Tensor:  # (N, C, …) of this rank, also with N = 0
        """Return the inputs normalised by the statistics of all ranks' inputs, in training."""
        if not self.training:
            return super().forward(inputs)
        values = inputs if inputs.dtype == torch.float64 else inputs.float()
        with torch.autocast(inputs.device.type, enabled=False):
            normalised, mean, variance, number = normalise(values, self.eps)
            shape = (1, -1, *[1] * (inputs.dim() - 2))
            if self.weight is not None:
                normalised = normalised * self.weight.view(shape)
            if self.bias is not None:
                normalised = normalised + self.bias.view(shape)
        self.run(mean, variance, number)
        return normalised.type_as(inputs)

    @torch.no_grad()
    def run(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        """Take the statistics of `number` values into the running ones, the variance without bias."""
        if self.running_mean is None:
            return
        counter(self).add_(1)
        share = 1 / counter(self).double() if self.momentum is None else self.momentum
        for running, found in zip(statistics(self), (mean, variance * number / (number - 1)), strict=True):
            running.copy_((1 - share) * running + share * found)


class Normalised(torch.autograd.Function):
    """(inputs - mean) / sqrt(variance + eps), with the mean and variance over all ranks."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return it for inputs (N, C, …), with the mean and variance, (C,), and of how many values these are."""
        ranks, axes, shape = Ranks.current(), *layout(inputs)
        sums = torch.cat([inputs.sum(axes), inputs.new_tensor([inputs.numel() // inputs.shape[1]])])
        ranks.add([sums])
        number = sums[-1]
        mean = sums[:-1] / number
        centred = inputs - mean.view(shape)
        variance = centred.square().sum(axes)
        ranks.add([variance])
        variance = variance / number
        scale = torch.rsqrt(variance + eps)
        normalised = centred * scale.view(shape)
        ctx.save_for_backward(normalised, scale, number)
        ctx.mark_non_differentiable(mean, variance, number)
        return normalised, mean, variance, number

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient for the inputs: each of them moves the mean and variance of all ranks."""
        normalised, scale, number = ctx.saved_tensors
        grad = grads[0]
        axes, shape = layout(grad)
        sums = torch.stack([grad.sum(axes), (grad * normalised).sum(axes)])
        Ranks.current().add([sums])
        of_mean, of_variance = (sums / number).unbind()
        inner = grad - of_mean.view(shape) - normalised * of_variance.view(shape)
        return inner * scale.view(shape), None


def normalise(inputs: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `Normalised` does."""
    found: tuple[Tensor, Tensor, Tensor, Tensor] = Normalised.apply(inputs, eps)
    return found


def layout(inputs: Tensor) -> tuple[list[int], tuple[int, ...]]:
    """Return the axes over which a channel is averaged, and the shape of a value per channel beside the inputs."""
    return [0, *range(2, inputs.dim())], (1, -1, *[1] * (inputs.dim() - 2))

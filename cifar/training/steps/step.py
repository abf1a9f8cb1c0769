"""One training step: forward, loss, backward, optimizer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from cifar.training.batch_norm import Running, is_synchronised
from cifar.training.devices.device import Device
from cifar.training.distributed import ALONE, Ranks
from cifar.training.measures.tallies import Step, all_finite


class TrainingStep:
    """Train a model on one batch.

    Of several `ranks` each has its share of the batch, and all take the same step. Nothing waits for the device, unless
    `on_nonfinite` is "skip", or in fp16 if the optimizer is not a fused one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        device: Device,
        *,
        label_smoothing: float = 0.0,
        accumulate: int = 1,
        on_nonfinite: str = "stop",
        clip_norm: float | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self.forward: nn.Module = torch.compile(model) if device.compile else model  # type: ignore[assignment]
        self.label_smoothing, self.accumulate, self.on_nonfinite = label_smoothing, accumulate, on_nonfinite
        self.clip_norm, self.ranks = clip_norm, ranks
        self.running = Running(model, self.ranks)
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.shares_statistics = any(map(is_synchronised, model.modules()))
        self.scaler = torch.amp.GradScaler(device.torch_device.type, enabled=device.precision == "fp16")
        self.finite_buffers = [name for name, buffer in model.named_buffers() if all_finite([buffer])]

    def set_lrs(self, lrs: Sequence[float]) -> None:
        """Set the learning rate of every group of weights."""
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr

    def __call__(self, inputs: Tensor, labels: Tensor, num_images: int | None = None) -> Tensor:
        """Take one optimizer step on inputs (B, C, H, W) and labels, unless fp16's gradient is not finite.

        Labels are classes, (B,), or each class's share, (B, number of classes); then the largest counts as correct.
        The batch has `num_images` if that is not B, because others have the rest. Returns, on the device, the loss, the
        number of images classified correctly, the norm of the gradient before it is clipped, and the factor on the
        loss, (4,).
        """
        skips = self.on_nonfinite == "skip"
        buffers = [buffer.clone() for buffer in self.model.buffers()] if skips else []
        scale = self.scaler.scale(torch.ones((), device=inputs.device))
        loss, num_correct = self.total_gradient(inputs, labels, len(labels) if num_images is None else num_images)
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([weight.grad for weight in self.model.parameters() if weight.grad is not None])
        if self.clip_norm is not None:
            clip_grads_with_norm_(self.trained, self.clip_norm, norm)
        if skips and not bool(torch.isfinite(loss + norm)):  # waits for the device
            for buffer, value in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(value)  # the running statistics of batch norm may have overflowed
        else:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack([loss, num_correct, norm, scale])

    def total_gradient(self, inputs: Tensor, labels: Tensor, num_images: int) -> Tensor:
        """Compute the gradient of the batch of `num_images`, of all ranks; return its loss and number correct, (2,)."""
        found = self.compute_gradient(inputs, labels, num_images)
        self.ranks.add_gradients(self.trained, found)
        return found

    def compute_gradient(self, inputs: Tensor, labels: Tensor, num_images: int) -> Tensor:
        """Compute the gradient, summed over `accumulate` parts of the batch; return loss and number correct, (2,).

        All of them are this rank's share of those of the whole batch of `num_images`.
        """
        loss_sum, num_correct = torch.zeros((2,), device=inputs.device)
        self.optimizer.zero_grad()
        counts = self.ranks.parts(num_images, self.accumulate)
        sizes = [count[self.ranks.rank] for count in counts]
        for part, targets, count in zip(inputs.split(sizes), labels.split(sizes), counts, strict=True):
            self.running.begin()
            if len(targets) or self.shares_statistics:  # who has no image still takes part in the others' statistics
                loss, logits = self.compute_loss(part, targets, num_images)
                self.scaler.scale(loss).backward()
                loss_sum += loss.detach()
                num_correct += (logits.detach().argmax(dim=1) == largest(targets)).sum()
            self.running.end(count)
        return torch.stack([loss_sum, num_correct])

    def compute_loss(self, inputs: Tensor, labels: Tensor, num_images: int) -> tuple[Tensor, Tensor]:
        """Return what these images add to the mean loss of `num_images`, and their logits."""
        with self.device.autocast():
            logits = self.forward(inputs)
        precise = logits if logits.dtype == torch.float64 else logits.float()
        if not len(labels):
            return precise.sum(), logits
        targets = labels.to(precise) if labels.is_floating_point() else labels
        loss = F.cross_entropy(precise, targets, label_smoothing=self.label_smoothing)
        return loss * (len(labels) / num_images), logits

    def find_scale(self, inputs: Tensor, labels: Tensor, num_images: int) -> None:
        """Find fp16's first factor on the loss, at which this batch's gradient is finite.

        Each trial that is not finite takes an eighth of it. Else the first steps of every run would be lost to halving.
        """
        if not self.scaler.is_enabled():
            return
        with self.unchanged():
            self.scaler.set_backoff_factor(1 / 8)
            while Step.of(TrainingStep.__call__(self, inputs, labels, num_images).tolist(), num_images).is_overflow:
                pass
            found = self.scaler.state_dict() | {"_growth_tracker": 0, "backoff_factor": 1 / 2}
        self.scaler.load_state_dict(found)

    def is_finite(self) -> bool:
        """Return whether weights, optimizer state, and the buffers that began so, are finite; waits for the device."""
        buffers = dict(self.model.named_buffers())
        return all_finite(
            [*self.model.parameters(), *self.optimizer_state(), *(buffers[name] for name in self.finite_buffers)]
        )

    def warm_up(self, inputs: Tensor, labels: Tensor, num_images: int | None = None) -> float:
        """Have everything compiled and chosen for batches of this shape; return the seconds it took.

        Weights, optimizer and random states are afterwards what they were.
        """
        start = perf_counter()
        with self.unchanged():
            TrainingStep.__call__(self, inputs, labels, num_images)
        self.device.wait()
        return perf_counter() - start

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Take back what steps have changed: weights, buffers, gradients, optimizer and random states."""
        tensors = [*self.model.parameters(), *self.model.buffers(), *self.optimizer_state()]
        values, random_state = [tensor.detach().clone() for tensor in tensors], self.device.random_state()
        states = {weight: dict(state) for weight, state in self.optimizer.state.items()}
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        scaling = self.scaler.state_dict()
        yield
        self.forget({id(tensor) for tensor in tensors}, states)
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        self.set_lrs(rates)
        if scaling:
            self.scaler.load_state_dict(scaling)
        self.optimizer.zero_grad()
        self.device.set_random_state(random_state)

    def forget(self, known: set[int], states: dict[Tensor, dict[str, object]]) -> None:
        """Take back what the optimizer has begun to keep; `known` has the ids of the tensors that it had."""
        self.optimizer.state.clear()
        self.optimizer.state.update(states)

    def optimizer_state(self) -> list[Tensor]:
        """Return all tensors that the optimizer keeps."""
        states = self.optimizer.state.values()
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def optimizer_state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, with learning rates as numbers."""
        state = self.optimizer.state_dict()
        for group in state["param_groups"]:
            group["lr"] = float(group["lr"])
        return state

    def load_optimizer(self, state: dict[str, Any], scaling: dict[str, Any]) -> None:
        """Go on from what `optimizer_state_dict` and the scaler's `state_dict` gave, which is {} without a scaler."""
        self.optimizer.load_state_dict(state)
        if scaling:
            self.scaler.load_state_dict(scaling)

    def begin_anew(self, other: "TrainingStep") -> None:
        """Take over the first weights and the learning rates of a step that was built for another run."""
        with torch.no_grad():
            ours, theirs = self.model.state_dict(), other.model.state_dict()
            for name, tensor in ours.items():
                tensor.copy_(theirs[name])
        self.forget(set(), {})
        self.scaler = other.scaler
        self.set_lrs([float(group["lr"]) for group in other.optimizer.param_groups])
        self.optimizer.zero_grad()


def largest(labels: Tensor) -> Tensor:
    """Return the classes (N,) that labels are, or have the largest share in them."""
    return labels.argmax(dim=1) if labels.is_floating_point() else labels

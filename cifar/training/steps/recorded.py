"""A training step that is recorded on a GPU and then started as a whole: `cifar run device=cuda device.graph=true`."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar.base.errors import UserError
from cifar.training.devices.device import Device
from cifar.training.steps.step import TrainingStep

WARM_UP_STEPS = 3  # before a recording, as torch's notes on CUDA graphs advise
STARTS_AT_ZERO = ("Adam", "AdamW", "SGD", "Muon")  # optimizers whose whole state is 0 before the first step


@dataclass(frozen=True)
class Recording:
    """A step for one shape of batches: where its inputs lie and its results appear, and what starts it."""

    inputs: Tensor
    labels: Tensor
    results: Tensor
    replay: Callable[[], object]


class RecordedStep(TrainingStep):
    """A step whose kernels are recorded once per shape of batches and then started together, as a CUDA graph.

    What differs from step to step lies in tensors that keep their place: inputs, labels, learning rates, weights and
    the optimizer's state.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, device: Device, **options: object) -> None:
        super().__init__(model, optimizer, device, **options)  # type: ignore[arg-type]
        if self.on_nonfinite == "skip":
            raise UserError("device.graph=true is not possible with on_nonfinite=skip, which waits at every step.")
        has_dampening = any(group.get("dampening", 0) for group in optimizer.param_groups)
        if type(optimizer).__name__ not in STARTS_AT_ZERO or has_dampening:
            raise UserError(
                f"device.graph=true is not possible with {type(optimizer).__name__}"
                f"{' and dampening' if has_dampening else ''}: there is {', '.join(STARTS_AT_ZERO)}."
            )
        if self.scaler.is_enabled():
            raise UserError(
                "device.graph=true is not possible with device.precision=fp16, whose steps can't be recorded, as they "
                "are taken or not: device.precision=bf16 can."
            )
        self.recordings: dict[tuple[torch.Size, torch.Size], Recording] = {}
        self.place_lrs()

    def place_lrs(self) -> None:
        """Give every group's learning rate a tensor on the device, and tell torch's optimizers of the recording."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=self.device.torch_device)
            group["capturable"] = True

    def load_optimizer(self, state: dict[str, Any], scaling: dict[str, Any]) -> None:
        """Go on from what `optimizer_state_dict` gave; before anything is recorded."""
        super().load_optimizer(state, scaling)
        self.place_lrs()

    def set_lrs(self, lrs: Sequence[float]) -> None:
        """Set the learning rate of every group of weights where it lies."""
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"].fill_(lr)

    def __call__(self, inputs: Tensor, labels: Tensor, num_images: int | None = None) -> Tensor:
        """Take one optimizer step; see `TrainingStep`."""
        if (inputs.shape, labels.shape) not in self.recordings:
            self.warm_up(inputs, labels)
        recording = self.recordings[inputs.shape, labels.shape]
        recording.inputs.copy_(inputs)
        recording.labels.copy_(labels)
        recording.replay()
        return recording.results.clone()

    def warm_up(self, inputs: Tensor, labels: Tensor, num_images: int | None = None) -> float:
        """Record the step for batches of this shape; return the seconds it took."""
        if (inputs.shape, labels.shape) in self.recordings:
            return 0.0
        start = perf_counter()
        place, targets = torch.empty_like(inputs).copy_(inputs), labels.clone()
        with self.unchanged():
            with self.device.side_stream(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*capturable")  # which these steps need not be
                for _ in range(WARM_UP_STEPS):
                    TrainingStep.__call__(self, place, targets)
            results, replay = self.device.record(lambda: TrainingStep.__call__(self, place, targets))
        self.recordings[inputs.shape, labels.shape] = Recording(place, targets, results, replay)
        self.device.wait()
        return perf_counter() - start

    def forget(self, known: set[int], states: dict[Tensor, dict[str, object]]) -> None:
        """Put what the optimizer has begun to keep to zero, where it lies."""
        for tensor in self.optimizer_state():
            if id(tensor) not in known:
                tensor.zero_()

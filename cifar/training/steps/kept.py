"""Steps that outlive their run if anything was compiled or recorded for them.

The next run of the process then needs neither compiler nor recording:
`cifar run -m experiment=speedrun94 'seed=range(0,100)' device=cuda device.graph=true`.
"""

from torch import nn
from torch.optim import Optimizer

from cifar.training.devices.device import Device
from cifar.training.steps.recorded import RecordedStep
from cifar.training.steps.sharpness import SAM, SharpnessAwareStep
from cifar.training.steps.step import TrainingStep

KEPT: dict[str, TrainingStep] = {}  # the last run's step, under what it depends on; at most one


def build_step(
    model: nn.Module, optimizer: Optimizer, device: Device, *, key: str, is_resumed: bool = False, **options: object
) -> TrainingStep:
    """Return a step, the last run's if it was compiled or recorded for the same `key` and was kept.

    `key` tells what the compiled code depends on. A resumed run gets a step of its own: its optimizer's state is read
    from a file.
    """
    if isinstance(optimizer, SAM):
        step: TrainingStep = SharpnessAwareStep(model, optimizer, device, **options)
    else:
        step = (RecordedStep if device.graph else TrainingStep)(model, optimizer, device, **options)  # type: ignore[arg-type]
    kept = KEPT.pop(key, None)
    KEPT.clear()
    if kept is None or is_resumed:
        return step
    kept.begin_anew(step)
    return kept


def keep(step: TrainingStep, key: str) -> None:
    """Keep a step for the process's next run, if anything was compiled or recorded for it."""
    KEPT.clear()
    if step.device.compile or step.device.graph:
        KEPT[key] = step

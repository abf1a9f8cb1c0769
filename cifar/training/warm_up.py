"""What a device prepares once, before a run's first step."""

from itertools import product
from time import perf_counter

import torch

from cifar.data.loader import Loader
from cifar.training.evaluating.tta import mean_logits
from cifar.training.trainer import Trainer


def warm_up(trainer: Trainer, test_loader: Loader, tta: str) -> float:
    """Have the device compile, record and choose what it needs before the first step; return the seconds.

    It changes no number of the run. A processor that compiles nothing needs none.
    """
    device, model, train_loader = trainer.device, trainer.model, trainer.train_loader
    if not device.needs_warm_up or trainer.counters.epoch == trainer.epochs:
        return 0.0
    model.train()
    batches = {train_loader.size_of(index): index for index in (len(train_loader) - 1, 0)}  # by their sizes
    seconds = 0.0
    for epoch, (size, index) in product(train_loader.sizes.first_epochs(), sorted(batches.items(), reverse=True)):
        inputs, labels = next(train_loader.epoch(epoch, start=index))
        seconds += trainer.train_step.warm_up(inputs, labels, size)
    start = perf_counter()
    model.eval()
    with torch.inference_mode(), device.autocast():
        mean_logits(model, next(test_loader.epoch(0))[0], tta)
    device.wait()
    return seconds + perf_counter() - start

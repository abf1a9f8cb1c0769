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
    seconds = 0.0
    for num_images, (epoch, index) in first_of_each_shape(train_loader, trainer.epochs):
        inputs, labels = next(train_loader.epoch(epoch, start=index))
        seconds += trainer.train_step.warm_up(inputs, labels, num_images)
    start = perf_counter()
    model.eval()
    with torch.inference_mode(), device.autocast():
        mean_logits(model, next(test_loader.epoch(0))[0], tta)
    device.wait()
    return seconds + perf_counter() - start


def first_of_each_shape(loader: Loader, epochs: int) -> list[tuple[int, tuple[int, int]]]:
    """Return the first batches of each number and size of images: how many, and the epoch and index of the batch."""
    found: dict[tuple[int | None, int], tuple[int, int]] = {}
    for epoch, index in product(range(epochs), range(len(loader))):
        pixels = loader.sizes.at(epoch, index, len(loader))
        found.setdefault((pixels, loader.size_of(index)), (epoch, index))
    return [(num_images, place) for (_, num_images), place in found.items()]

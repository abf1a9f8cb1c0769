"""Batch norm's running statistics for weights that no training step has had."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar.data.loader import Loader
from cifar.training.batch_norm import Running, is_synchronised
from cifar.training.steps.step import TrainingStep


@torch.no_grad()
def recompute(model: nn.Module, loader: Loader, epoch: int, step: TrainingStep) -> None:
    """Give the model's batch norms the mean statistics of all batches of an epoch, as torch's `update_bn` does.

    The batches go through the model in training mode, divided among ranks and in parts as the training `step` divides
    them. The random state is afterwards what it was, so dropout changes nothing of the run.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta, random_state = [norm.momentum for norm in norms], step.device.random_state()
    shares_statistics, running = any(map(is_synchronised, norms)), Running(model, step.ranks)
    was_training = model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    for index, (inputs, _) in enumerate(loader.epoch(epoch)):
        counts = step.ranks.parts(loader.size_of(index), step.accumulate)
        for part, count in zip(inputs.split([each[step.ranks.rank] for each in counts]), counts, strict=True):
            running.begin()
            if len(part) or shares_statistics:
                with step.device.autocast():
                    model(part)
            running.end(count)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
    step.device.set_random_state(random_state)

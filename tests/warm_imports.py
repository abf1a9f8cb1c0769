"""What processes.py imports before it forks: nothing that starts a thread or, like wandb, makes a temporary folder."""

import torch

import cifar.commands.app.cli
import cifar.experiment.run  # noqa: F401

torch.optim.Adam([torch.zeros(1)])  # imports torch._dynamo

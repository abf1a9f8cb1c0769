"""What processes.py imports before it forks; nothing here may start a thread."""

import torch
import wandb  # noqa: F401

import cifar.cli
import cifar.experiment  # noqa: F401

torch.optim.Adam([torch.zeros(1)])  # imports torch._dynamo

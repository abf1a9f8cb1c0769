"""Models small enough to train in a test."""

import os
import time
from pathlib import Path

from torch import Tensor, nn


def tiny(num_classes: int = 10, dropout: float = 0.1) -> nn.Module:
    """Build a network for (N, 3, 32, 32) with some 400 parameters: convolution, batch norm, dropout, linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, num_classes),
    )


class Slow(nn.Module):
    """The tiny network, with a pause of `seconds` before every batch; it takes `build_seconds` to build."""

    def __init__(self, seconds: float, num_classes: int = 10, build_seconds: float = 0) -> None:
        super().__init__()
        time.sleep(build_seconds)
        self.seconds, self.inner = seconds, tiny(num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        time.sleep(self.seconds)
        logits: Tensor = self.inner(inputs)
        return logits


def noting(folder: str, num_classes: int = 10) -> nn.Module:
    """Build the tiny network, and leave in the folder a file called by the process with the GPUs that it may see."""
    Path(folder).mkdir(exist_ok=True)
    with (Path(folder) / str(os.getpid())).open("a") as file:
        file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ.get('OMP_NUM_THREADS')}\n")
    return tiny(num_classes)

"""A model small enough to train in a test, with convolution, batch norm, dropout and a linear layer."""

from torch import nn


def tiny(num_classes: int = 10) -> nn.Module:
    """Build a network for (N, 3, 32, 32) with some 400 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8, num_classes),
    )

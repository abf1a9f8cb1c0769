"""ResNet-18 for 32×32 images, the usual yardstick on CIFAR-10: `cifar run model=resnet18`.

He et al.'s network of basic blocks (arXiv:1512.03385, table 1) with the stem that small images need: one 3×3
convolution and no pooling, so that the four stages work on maps of 32, 16, 8 and 4.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from cifar.base.limits import NUM_CLASSES, refuse_impossible

WIDTHS = (64, 64, 128, 256, 512)  # of the stem and of the four stages


def conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution without bias and batch norm; the map keeps its size at stride 1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Add two 3×3 convolutions to a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(in_channels, out_channels, 3, stride), nn.ReLU(), conv_bn(out_channels, out_channels, 3)
        )
        keeps_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if keeps_shape else conv_bn(in_channels, out_channels, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:  # (N, in, H, W) -> (N, out, H / stride, W / stride)
        return F.relu(self.layers(inputs) + self.shortcut(inputs))


def resnet18(num_classes: int = 10) -> nn.Sequential:
    """Build the network: 11,173,962 parameters with ten classes."""
    refuse_impossible("model", {"num_classes": num_classes}, {"num_classes": NUM_CLASSES})
    blocks: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(WIDTHS)):
        blocks += [BasicBlock(before, after, stride=1 if number == 0 else 2), BasicBlock(after, after, stride=1)]
    return nn.Sequential(
        conv_bn(3, WIDTHS[0], 3),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], num_classes),
    )

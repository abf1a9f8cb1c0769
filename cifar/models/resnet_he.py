"""The residual networks of He et al. for 32×32 images: `cifar run model=resnet18`, `resnet34`, `resnet50_he`.

The stages are those of arXiv:1512.03385, table 1, with the stem that small images need: one 3×3 convolution and no
pooling, so that the four stages work on maps of 32, 16, 8 and 4. The stride of a bottleneck is that of its 3×3
convolution, as today's libraries have it.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from cifar.base.limits import NUM_CLASSES, refuse_impossible, whole_number
from cifar.models.blocks import classifier, conv_bn

WIDTH = 64  # of the first stage; each further one has twice that of the one before
LIMITS = {"num_classes": NUM_CLASSES, "width": whole_number(1, 65_536, " of channels")}
Branch = Callable[[int, int, int], nn.Sequential]  # from channels in, width and stride


def basic(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """Build two 3×3 convolutions."""
    return nn.Sequential(conv_bn(in_channels, width, 3, stride), nn.ReLU(), conv_bn(width, width, 3))


def bottleneck(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """Build a 1×1, a 3×3 and a 1×1 convolution, the last of four times the width."""
    return nn.Sequential(
        conv_bn(in_channels, width, 1), nn.ReLU(),
        conv_bn(width, width, 3, stride), nn.ReLU(),
        conv_bn(width, 4 * width, 1),
    )  # fmt: skip


class Block(nn.Module):
    """Add a branch to a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, branch: nn.Module, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.layers = branch
        keeps_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if keeps_shape else conv_bn(in_channels, out_channels, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:  # (N, in, H, W) -> (N, out, H / stride, W / stride)
        return F.relu(self.layers(inputs) + self.shortcut(inputs))


def resnet(depths: Sequence[int], branch: Branch, expansion: int, num_classes: int, width: int) -> nn.Sequential:
    """Build stages of so many blocks, the first of this width; a block puts out `expansion` times its width."""
    refuse_impossible("model", {"num_classes": num_classes, "width": width}, LIMITS)
    blocks: list[nn.Module] = []
    channels = width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        for number in range(depth):
            stride = 2 if stage > 0 and number == 0 else 1
            blocks.append(Block(branch(channels, inner, stride), channels, expansion * inner, stride))
            channels = expansion * inner
    return nn.Sequential(conv_bn(3, width, 3), nn.ReLU(), *blocks, *classifier(channels, num_classes))


def resnet18(num_classes: int = 10, width: int = WIDTH) -> nn.Sequential:
    """Build the network of basic blocks: 11,173,962 parameters with ten classes and the paper's width."""
    return resnet((2, 2, 2, 2), basic, 1, num_classes, width)


def resnet34(num_classes: int = 10, width: int = WIDTH) -> nn.Sequential:
    """Build the deeper one: 21,282,122 parameters with ten classes and the paper's width."""
    return resnet((3, 4, 6, 3), basic, 1, num_classes, width)


def resnet50_he(num_classes: int = 10, width: int = WIDTH) -> nn.Sequential:
    """Build the four-stage network of bottlenecks: 23,520,842 parameters with ten classes and the paper's width."""
    return resnet((3, 4, 6, 3), bottleneck, 4, num_classes, width)

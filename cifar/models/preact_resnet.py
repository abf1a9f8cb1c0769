"""Residual networks with pre-activation for 32×32 images: `cifar run model=preact_resnet18`, `wrn28_10`, `wrn16_8`.

In a block batch norm and ReLU come before each convolution, and nothing follows the sum (He et al.,
arXiv:1603.05027). Wide networks have three stages of few, wide blocks with dropout between the two convolutions
(Zagoruyko & Komodakis, arXiv:1605.07146).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.base.limits import NUM_CLASSES, number, refuse_impossible
from cifar.models.blocks import DEPTH, WIDTH, bn_relu_conv, classifier, initialise_he

DROPOUT = number("a number of at least 0 and less than 1", lambda value: 0 <= value < 1)


class PreactBlock(nn.Module):
    """Add two 3×3 convolutions, with dropout between them, to a shortcut.

    Where the shape changes the shortcut is a 1×1 convolution of the inputs after their batch norm and ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        second = bn_relu_conv(out_channels, out_channels, 3)
        self.second = nn.Sequential(*second[:2], nn.Dropout(dropout), second[2]) if dropout else second
        changes_shape = stride > 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes_shape else None

    def forward(self, inputs: Tensor) -> Tensor:  # (N, in, H, W) -> (N, out, H / stride, W / stride)
        activated = self.activation(inputs)
        shortcut = inputs if self.shortcut is None else self.shortcut(activated)
        outputs: Tensor = self.second(self.first(activated)) + shortcut
        return outputs


def preact_resnet(
    stem_width: int, widths: Sequence[int], depth: int, dropout: float, num_classes: int
) -> nn.Sequential:
    """Build stages of `depth` blocks each; every stage but the first begins with stride 2."""
    refuse_impossible("model", {"num_classes": num_classes}, {"num_classes": NUM_CLASSES})
    layers: list[nn.Module] = [nn.Conv2d(3, stem_width, 3, padding=1, bias=False)]
    channels = stem_width
    for stage, width in enumerate(widths):
        for index in range(depth):
            layers.append(PreactBlock(channels, width, 2 if stage > 0 and index == 0 else 1, dropout))
            channels = width
    model = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *classifier(channels, num_classes))
    initialise_he(model)
    return model


def preact_resnet18(num_classes: int = 10) -> nn.Sequential:
    """Build the counterpart of resnet18: 11,172,170 parameters with ten classes."""
    return preact_resnet(64, (64, 128, 256, 512), 2, 0.0, num_classes)


def wide_resnet(depth: int, width: int, dropout: float = 0.0, num_classes: int = 10) -> nn.Sequential:
    """Build WRN-`depth`-`width`: 36,479,194 parameters for 28 and 10, 10,961,370 for 16 and 8, with ten classes.

    Of `depth` = 6 n + 4 layers, three stages have n blocks each, of 16, 32 and 64 times `width` channels.
    """
    limits = {"depth": DEPTH, "width": WIDTH, "dropout": DROPOUT}
    refuse_impossible("model", {"depth": depth, "width": width, "dropout": dropout}, limits)
    if depth < 10 or depth % 6 != 4:
        raise UserError(f"model.depth={depth} is not possible: it takes 10, 16, 22, 28, …, six more for each block.")
    return preact_resnet(16, [width * base for base in (16, 32, 64)], (depth - 4) // 6, dropout, num_classes)

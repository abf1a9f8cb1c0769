"""DenseNet-BC for 32×32 images: `cifar run model=densenet_bc_100_12` (Huang et al., arXiv:1608.06993).

Every layer reads the maps of all layers before it in its block: here through a 1×1 convolution to four times the
growth rate (B), and between blocks a 1×1 convolution halves the number of maps (C).
"""

import torch
from torch import Tensor, nn

from cifar.base.errors import UserError
from cifar.base.limits import NUM_CLASSES, refuse_impossible
from cifar.models.blocks import DEPTH, WIDTH, bn_relu_conv, classifier, initialise_he


class DenseLayer(nn.Module):
    """Put `growth` new maps behind those read."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*bn_relu_conv(in_channels, 4 * growth, 1), *bn_relu_conv(4 * growth, growth, 3))

    def forward(self, inputs: Tensor) -> Tensor:  # (N, in, H, W) -> (N, in + growth, H, W)
        return torch.cat([inputs, self.layers(inputs)], dim=1)


def densenet_bc(depth: int, growth: int, num_classes: int = 10) -> nn.Sequential:
    """Build DenseNet-BC-`depth`-`growth`: 769,162 parameters for 100 and 12, with ten classes.

    Of `depth` = 6 n + 4 layers, three blocks have n dense layers of two convolutions each.
    """
    refuse_impossible("model", {"depth": depth, "growth": growth}, {"depth": DEPTH, "growth": WIDTH})
    refuse_impossible("model", {"num_classes": num_classes}, {"num_classes": NUM_CLASSES})
    if depth < 10 or depth % 6 != 4:
        raise UserError(
            f"model.depth={depth} is not possible: it takes 10, 16, 22, …, 100, …, six more for each layer."
        )
    channels = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range((depth - 4) // 6):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        if block < 2:
            layers += [*bn_relu_conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    model = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *classifier(channels, num_classes))
    initialise_he(model)
    return model

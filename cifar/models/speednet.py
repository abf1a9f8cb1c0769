"""A small network that learns fast: `cifar run experiment=speedrun94`, or `model=speednet` with anything else.

The ideas are those of Keller Jordan's airbench (arXiv:2404.00498) and of Page's and tysam-code's networks before it: a
frozen first layer that whitens 2×2 patches, three groups of two 3×3 convolutions that begin as partial identities,
batch norm without learnt scales, GELU, and a linear head with a small output scale.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cifar.base.limits import NUM_CLASSES, list_of, number, refuse_impossible, whole_number

PATCH = 2  # pixels on each side of a whitened patch
LIMITS = {
    "widths": list_of(3, whole_number(1, 65_536), "three whole numbers of channels from 1 to 65,536"),
    "num_classes": NUM_CLASSES,
    "scale": number("a positive number", lambda value: value > 0).or_null(),
    "norm_momentum": number("a number above 0, at most 1", lambda value: 0 < value <= 1),
}


class Norm(nn.BatchNorm2d):
    """Batch norm with a learnt shift and no learnt scale."""

    def __init__(self, num_features: int, momentum: float) -> None:
        super().__init__(num_features, eps=1e-12, momentum=momentum)
        self.weight.requires_grad_(False)


class Whitening(nn.Conv2d):
    """Project every patch on its principal directions, each scaled to variance 1, once as it is and once negated.

    The weight is computed by `fit` and frozen; the bias is learnt.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 2 * in_channels * PATCH**2, kernel_size=PATCH)
        self.weight.requires_grad_(False)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    @torch.no_grad()
    def fit(self, images: Tensor, eps: float = 5e-4) -> None:
        """Compute the weight from normalised images (N, C, H, W); `eps` is added to the variances."""
        channels = images.shape[1]
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (N, C, H - 1, W - 1, 2, 2)
        patches = patches.transpose(1, 3).reshape(-1, channels * PATCH**2)
        covariance = (patches.T @ patches) / len(patches)
        variances, directions = torch.linalg.eigh(covariance)
        filters = (directions / torch.sqrt(variances + eps)).T.reshape(-1, channels, PATCH, PATCH)
        self.weight.copy_(torch.cat([filters, -filters]))


class Group(nn.Sequential):
    """Two 3×3 convolutions, the first followed by pooling: (N, in, H, W) -> (N, out, H // 2, W // 2)."""

    def __init__(self, in_channels: int, out_channels: int, momentum: float) -> None:
        super().__init__(
            convolution(in_channels, out_channels),
            nn.MaxPool2d(2),
            Norm(out_channels, momentum),
            nn.GELU(),
            convolution(out_channels, out_channels),
            Norm(out_channels, momentum),
            nn.GELU(),
        )


def convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Build a 3×3 convolution without bias whose first `in_channels` filters pass their channel on unchanged."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:in_channels])
    return layer


class SpeedNet(nn.Module):
    """Whitening, three groups and a linear head, for 32×32 images; see the module's text."""

    def __init__(self, widths: Sequence[int], num_classes: int, scale: float | None, norm_momentum: float) -> None:
        super().__init__()
        self.whitening = Whitening(3)
        channels = [self.whitening.out_channels, *widths]
        self.groups = nn.Sequential(
            nn.GELU(),
            *(Group(before, after, norm_momentum) for before, after in pairwise(channels)),
            nn.AdaptiveMaxPool2d(1),  # of 3×3 for images of 32×32
        )
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        nn.init.normal_(self.head.weight)
        self.scale = 1 / widths[-1] if scale is None else scale

    def fit_to(self, images: Tensor) -> None:
        """Compute the whitening layer from normalised training images (N, 3, 32, 32)."""
        self.whitening.fit(images)

    def forward(self, inputs: Tensor) -> Tensor:  # (N, 3, 32, 32) -> (N, num_classes)
        features = self.groups(self.whitening(inputs))  # (N, width, 1, 1)
        logits: Tensor = self.scale * self.head(features.flatten(1))
        return logits


def speednet(
    widths: Sequence[int] = (64, 256, 256),
    num_classes: int = 10,
    scale: float | None = None,
    norm_momentum: float = 0.4,
) -> SpeedNet:
    """Build the network: 1,972,792 parameters with the default widths and ten classes."""
    values = {"widths": widths, "num_classes": num_classes, "scale": scale, "norm_momentum": norm_momentum}
    refuse_impossible("model", values, LIMITS)
    return SpeedNet(widths, num_classes, scale, norm_momentum)

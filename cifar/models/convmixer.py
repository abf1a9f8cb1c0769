"""ConvMixer for 32×32 images: `cifar run model=convmixer` (Trockman & Kolter, arXiv:2201.09792).

A convolution cuts the image into patches; then large depthwise convolutions mix places and 1×1 convolutions mix
channels, each with GELU and batch norm, at the same size throughout.
"""

from torch import Tensor, nn

from cifar.base.limits import NUM_CLASSES, Limit, refuse_impossible, whole_number
from cifar.models.blocks import DEPTH, WIDTH, classifier

PATCH = whole_number(1, 32, " of pixels")
KERNEL = Limit("an odd whole number of pixels from 1 to 31", lambda value: value in range(1, 32, 2))


def gelu_bn(convolution: nn.Conv2d) -> nn.Sequential:
    """Build a convolution with what follows it."""
    return nn.Sequential(convolution, nn.GELU(), nn.BatchNorm2d(convolution.out_channels))


class Mixer(nn.Module):
    """Mix the places of each channel and add that, then mix the channels of each place."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.places = gelu_bn(nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width))
        self.channels = gelu_bn(nn.Conv2d(width, width, 1))

    def forward(self, inputs: Tensor) -> Tensor:  # (N, width, H, W), as the inputs
        outputs: Tensor = self.channels(self.places(inputs) + inputs)
        return outputs


def convmixer(width: int, depth: int, kernel_size: int, patch_size: int, num_classes: int = 10) -> nn.Sequential:
    """Build ConvMixer-`width`/`depth`: 594,186 parameters for 256, 8, kernels of 5 and patches of 2."""
    refuse_impossible(
        "model",
        {"width": width, "depth": depth, "kernel_size": kernel_size, "patch_size": patch_size,
         "num_classes": num_classes},
        {"width": WIDTH, "depth": DEPTH, "kernel_size": KERNEL, "patch_size": PATCH, "num_classes": NUM_CLASSES},
    )  # fmt: skip
    return nn.Sequential(
        gelu_bn(nn.Conv2d(3, width, patch_size, stride=patch_size)),
        *(Mixer(width, kernel_size) for _ in range(depth)),
        *classifier(width, num_classes),
    )

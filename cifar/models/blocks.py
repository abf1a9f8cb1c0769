"""What several families of models are built of."""

from torch import nn

from cifar.base.limits import whole_number

WIDTH = whole_number(1, 65_536, " of channels")
DEPTH = whole_number(1, 10_000, " of layers")


def conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution without bias and batch norm; the map keeps its size at stride 1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def bn_relu_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Build the same in the order of pre-activation: batch norm, ReLU, convolution without bias."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
    )


def classifier(channels: int, num_classes: int) -> list[nn.Module]:
    """Build the mean over the map and one linear layer: (N, channels, H, W) -> (N, num_classes)."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


def initialise_he(model: nn.Module) -> None:
    """Draw the convolutions' weights from normals with std sqrt(2 / fan_out), and clear the linear layers' biases.

    He et al., arXiv:1502.01852, equation 14.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

"""The course report's three-stage ResNet50 for 32×32 images: `cifar run model=resnet50`.

It keeps He et al.'s bottleneck (arXiv:1512.03385, section 4.1) and differs from their ResNet50 on purpose: three
stages instead of four, a stage halves the map in its last block instead of its first, every shortcut is a
convolution, and nothing follows the sum. The stages read like the report's table in `resnet50` below.
"""

import re
from typing import Any

from torch import Tensor, nn

from cifar.base.limits import NUM_CLASSES, refuse_impossible


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Build convolution (with bias), batch norm and ReLU; the map keeps its size at stride 1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class Bottleneck(nn.Module):
    """Add a 1×1, 3×3, 1×1 branch to a 1×1 shortcut; both halve the map if `downsample`."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, downsample: bool) -> None:
        super().__init__()
        stride = 2 if downsample else 1
        self.layer = nn.Sequential(
            conv_bn_relu(in_channels, mid_channels, 1, stride),
            conv_bn_relu(mid_channels, mid_channels, 3),
            conv_bn_relu(mid_channels, out_channels, 1),
        )
        self.shortcut = conv_bn_relu(in_channels, out_channels, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:  # (N, in, H, W) -> (N, out, H / stride, W / stride)
        outputs: Tensor = self.layer(inputs) + self.shortcut(inputs)
        return outputs


def stage(in_channels: int, mid_channels: int, out_channels: int, num_blocks: int, downsample: bool) -> nn.Sequential:
    """Stack bottleneck blocks, the last of which halves the map if `downsample`."""
    widths = [in_channels] + [out_channels] * (num_blocks - 1)
    return nn.Sequential(
        *(
            Bottleneck(width, mid_channels, out_channels, downsample=downsample and index == num_blocks - 1)
            for index, width in enumerate(widths)
        )
    )


class ResNet(nn.Module):
    """Run a stem, three stages of bottlenecks and a linear classifier; weights are Xavier-uniform.

    Loads the course's checkpoints too: they call a block's shortcut `make_equal_channel` or `downsize`.
    """

    def __init__(
        self, layer2: nn.Module, layer3: nn.Module, layer4: nn.Module, num_features: int, num_classes: int
    ) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.layer2, self.layer3, self.layer4 = layer2, layer3, layer4
        self.avgpool = nn.AvgPool2d(kernel_size=2, stride=2)
        self.fc = nn.Linear(num_features, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
        self.register_load_state_dict_pre_hook(_rename_course_keys)  # type: ignore[no-untyped-call]

    def forward(self, inputs: Tensor) -> Tensor:  # (N, 3, 32, 32) -> (N, num_classes)
        features = self.layer4(self.layer3(self.layer2(self.layer1(inputs))))  # (N, 1024, 2, 2)
        logits: Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


def _rename_course_keys(module: nn.Module, state_dict: dict[str, Any], *_: Any) -> None:
    for key in list(state_dict):
        renamed = re.sub(r"\.(make_equal_channel|downsize)\.", ".shortcut.", key)
        if renamed != key:
            state_dict[renamed] = state_dict.pop(key)


def resnet50(num_classes: int = 10) -> ResNet:
    """Build the report's ResNet50: 14,750,730 parameters with ten classes."""
    refuse_impossible("model", {"num_classes": num_classes}, {"num_classes": NUM_CLASSES})
    # The stem gives (64, 8, 8).       in   mid   out   blocks             map after the stage
    return ResNet(
        layer2=stage(64, 64, 256, num_blocks=3, downsample=True),  # (256, 4, 4)
        layer3=stage(256, 128, 512, num_blocks=4, downsample=True),  # (512, 2, 2)
        layer4=stage(512, 256, 1024, num_blocks=6, downsample=False),  # (1024, 2, 2)
        num_features=1024,
        num_classes=num_classes,
    )

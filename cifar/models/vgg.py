"""VGG16 for 32×32 images: `cifar run model=vgg16`, the course report's, and `model=vgg16_bn`, the field's.

The thirteen convolutions are configuration D of Simonyan & Zisserman (arXiv:1409.1556, table 1). The report's
classifier is its own: 512 features, one hidden layer with batch norm. The field's usual form has batch norm after every
convolution and a single linear layer.
"""

from collections.abc import Sequence
from math import sqrt

from torch import Tensor, nn

from cifar.base.limits import NUM_CLASSES, refuse_impossible
from cifar.models.blocks import initialise_he

POOL = "M"  # halves the map
VGG16 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL)


def convolutions(table: Sequence[int | str], batch_norm: bool = False) -> nn.Sequential:
    """Build 3×3 convolutions (with bias) of these widths, with batch norm or not, each with a ReLU, and poolings."""
    layers: list[nn.Module] = []
    in_channels = 3
    for entry in table:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            norm = [nn.BatchNorm2d(entry)] if batch_norm else []
            layers += [nn.Conv2d(in_channels, entry, kernel_size=3, padding=1), *norm, nn.ReLU()]
            in_channels = entry
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """Run the table's convolutions and a classifier with one hidden layer.

    Convolution weights are normal with std sqrt(2 / fan_out), their biases zero (He et al.,
    arXiv:1502.01852, equation 14).
    """

    def __init__(self, table: Sequence[int | str], num_classes: int) -> None:
        super().__init__()
        self.features = convolutions(table)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(512, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(512, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=sqrt(2 / fan_out))
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:  # (N, 3, 32, 32) -> (N, num_classes)
        features = self.features(inputs)  # (N, 512, 1, 1)
        logits: Tensor = self.classifier(features.flatten(1))
        return logits


def vgg16(num_classes: int = 10) -> VGG:
    """Build the report's VGG16: 14,983,498 parameters with ten classes."""
    refuse_impossible("model", {"num_classes": num_classes}, {"num_classes": NUM_CLASSES})
    return VGG(VGG16, num_classes)


def vgg16_bn(num_classes: int = 10) -> nn.Sequential:
    """Build the usual form with batch norm: 14,728,266 parameters with ten classes."""
    refuse_impossible("model", {"num_classes": num_classes}, {"num_classes": NUM_CLASSES})
    model = nn.Sequential(*convolutions(VGG16, batch_norm=True), nn.Flatten(), nn.Linear(512, num_classes))
    initialise_he(model)
    return model

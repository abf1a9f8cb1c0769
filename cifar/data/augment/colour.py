"""Random brightness, contrast and saturation: `cifar run augment=colour`."""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from cifar.base.limits import number, refuse_impossible
from cifar.data.augment.constants import constant
from cifar.data.augment.operations import each_its_own
from cifar.data.augment.tones import brightness, contrast, saturation

UNIT = 2**24  # factors are whole multiples of 2 ** -24
AMOUNT = number("a number from 0 to 100", lambda value: 0 <= value <= 100)
LIMITS = dict.fromkeys(("brightness", "contrast", "saturation"), AMOUNT)
KERNELS = (brightness, contrast, saturation)
ORDERS = tuple(permutations(range(3)))


@dataclass(frozen=True)
class ColourJitter:
    """Change brightness, contrast and saturation, in an order of the image's own.

    Each is multiplied by a factor from max(0, 1 - amount) to 1 + amount, as in torchvision's ColorJitter.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __post_init__(self) -> None:
        refuse_impossible("augment", vars(self), LIMITS)

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 4): which of the six orders, and the three factors in units of 2 ** -24."""
        orders = torch.randint(len(ORDERS), (len(order), 1), generator=generator)
        amounts = torch.tensor([self.brightness, self.contrast, self.saturation], dtype=torch.float64)
        low, high = (1 - amounts).clamp(min=0), 1 + amounts
        factors = low + (high - low) * torch.rand((len(order), 3), generator=generator, dtype=torch.float64)
        return torch.cat([orders, (UNIT * factors).round().long()], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the images with their colours changed."""
        orders = constant(ORDERS, torch.int64, images.device)[choices[:, 0]]  # (N, 3)
        factors = choices[:, 1:].float() / UNIT
        tables = [torch.stack([factor, 1 - factor], dim=1) for factor in factors.unbind(dim=1)]  # (N, 2) each
        rows = torch.arange(len(images), device=images.device)
        for kinds in orders.unbind(dim=1):
            images = each_its_own(images, kinds, rows, KERNELS, tables)
        return images

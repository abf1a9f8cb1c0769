"""Automatic augmentations: each image gets operations with magnitudes of its own, drawn by a fixed rule.

`cifar run augment=trivial`, `augment=rand`, `augment=auto`. Operations, magnitudes and rules are those of torchvision,
with its defaults: nearest neighbours, black where nothing is.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cifar.base.errors import UserError
from cifar.base.limits import refuse_impossible, whole_number
from cifar.data.augment.operations import OPERATIONS, each_its_own

LIMITS = {
    "num_ops": whole_number(1, 100, " of operations"),
    "num_magnitudes": whole_number(2, 1000, " of magnitudes"),
    "magnitude": whole_number(0, 999),
}
Space = dict[str, Tensor]  # of each operation the magnitudes, (L,): zeros where there are none
SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"}
LARGEST_SHIFT = 150 / 331  # of the side; AutoAugment was found on images of 331 pixels


class Policy(ABC):
    """What draws operations and their magnitudes from a space.

    A row of choices has three numbers for each operation that is done: which one, in the order of the space, which of
    its magnitudes, and 1 if that is negative, for operations that can be.
    """

    @abstractmethod
    def space(self, height: int, width: int) -> Space:
        """Return the operations for images of this size."""

    @abstractmethod
    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 3 * number of operations)."""

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Return the images after their operations, one after the other."""
        _, _, height, width = images.shape
        names, tables = tables_of(self, height, width, images.device)
        kernels = [OPERATIONS[name].apply for name in names]
        for chosen in choices.unflatten(1, (-1, 3)).unbind(dim=1):
            kinds, magnitudes, is_negative = chosen.unbind(dim=1)  # (N,) each
            images = each_its_own(images, kinds, 2 * magnitudes + is_negative, kernels, tables)
        return images


@lru_cache(maxsize=8)
def tables_of(policy: Policy, height: int, width: int, device: torch.device) -> tuple[list[str], list[Tensor]]:
    """Return the names of the policy's operations, and for each its values, (2 * L, K): every magnitude, + and -."""
    space, tables = policy.space(height, width), []
    for name, magnitudes in space.items():
        signs = (1, -1) if name in SIGNED else (1, 1)
        rows = [
            OPERATIONS[name].values(sign * magnitude, height, width)
            for magnitude in magnitudes.tolist()
            for sign in signs
        ]
        tables.append(torch.stack(rows).to(device))
    return [*space], tables


@dataclass(frozen=True)
class TrivialAugment(Policy):
    """One operation, with one of `num_magnitudes` magnitudes, all equally likely.

    Follows Müller & Hutter, arXiv:2103.10158, with the wide space of their table 4.
    """

    num_magnitudes: int = 31

    def __post_init__(self) -> None:
        refuse_impossible("augment", vars(self), LIMITS)

    def space(self, height: int, width: int) -> Space:
        """Return the wide space, whose shifts are in pixels."""
        return fourteen(self.num_magnitudes, shear=0.99, shifts=(32.0, 32.0), angle=135.0, blend=0.99, bits=6)

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 3)."""
        return drawn(len(order), generator, 14, self.num_magnitudes, 2)


@dataclass(frozen=True)
class RandAugment(Policy):
    """Several operations in a row, all equally likely, with the same one of `num_magnitudes` magnitudes.

    Follows Cubuk et al., arXiv:1909.13719.
    """

    num_ops: int = 2
    magnitude: int = 9
    num_magnitudes: int = 31

    def __post_init__(self) -> None:
        refuse_impossible("augment", vars(self), LIMITS)
        if self.magnitude >= self.num_magnitudes:
            raise UserError(
                f"augment.magnitude={self.magnitude} is not possible: it takes a whole number less than "
                f"augment.num_magnitudes={self.num_magnitudes}."
            )

    def space(self, height: int, width: int) -> Space:
        """Return AutoAugment's space, with one magnitude for each operation."""
        space = narrow(self.num_magnitudes, height, width)
        return {name: magnitudes[self.magnitude, None] for name, magnitudes in space.items()}

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 3 * num_ops)."""
        return torch.cat([drawn(len(order), generator, 14, 1, 2) for _ in range(self.num_ops)], dim=1)


# What AutoAugment found for CIFAR-10: an operation, the probability in tenths, one of ten magnitudes; twice.
CIFAR10_POLICY = (
    (("Invert", 1, 0), ("Contrast", 2, 6)),
    (("Rotate", 7, 2), ("TranslateX", 3, 9)),
    (("Sharpness", 8, 1), ("Sharpness", 9, 3)),
    (("ShearY", 5, 8), ("TranslateY", 7, 9)),
    (("AutoContrast", 5, 0), ("Equalize", 9, 0)),
    (("ShearY", 2, 7), ("Posterize", 3, 7)),
    (("Color", 4, 3), ("Brightness", 6, 7)),
    (("Sharpness", 3, 9), ("Brightness", 7, 9)),
    (("Equalize", 6, 0), ("Equalize", 5, 0)),
    (("Contrast", 6, 7), ("Sharpness", 6, 5)),
    (("Color", 7, 7), ("TranslateX", 5, 8)),
    (("Equalize", 3, 0), ("AutoContrast", 4, 0)),
    (("TranslateY", 4, 3), ("Sharpness", 2, 6)),
    (("Brightness", 9, 6), ("Color", 2, 8)),
    (("Solarize", 5, 2), ("Invert", 0, 0)),
    (("Equalize", 2, 0), ("AutoContrast", 6, 0)),
    (("Equalize", 2, 0), ("Equalize", 6, 0)),
    (("Color", 9, 9), ("Equalize", 6, 0)),
    (("AutoContrast", 8, 0), ("Solarize", 2, 8)),
    (("Brightness", 1, 3), ("Color", 7, 0)),
    (("Solarize", 4, 5), ("AutoContrast", 9, 0)),
    (("TranslateY", 9, 9), ("TranslateY", 7, 9)),
    (("AutoContrast", 9, 0), ("Solarize", 8, 3)),
    (("Equalize", 8, 0), ("Invert", 1, 0)),
    (("TranslateY", 7, 9), ("AutoContrast", 9, 0)),
)


@dataclass(frozen=True)
class AutoAugment(Policy):
    """One of 25 pairs of operations, which were found for CIFAR-10; each is done with a probability of its own.

    Follows Cubuk et al., arXiv:1805.09501, table 7.
    """

    def space(self, height: int, width: int) -> Space:
        """Return its space of ten magnitudes."""
        return narrow(10, height, width) | {"Invert": torch.zeros(10)}

    def draw(self, order: Tensor, generator: torch.Generator, epoch: int = 0, seed: int = 0) -> Tensor:
        """Return (N, 6); an operation that is not done is the first of the space, Identity."""
        number = {name: index for index, name in enumerate(self.space(1, 1))}
        policy = torch.tensor(
            [[(number[name], tenths, level) for name, tenths, level in pair] for pair in CIFAR10_POLICY]
        )
        pairs = policy[torch.randint(len(policy), (len(order),), generator=generator)]  # (N, 2, 3)
        size = (len(order), 2)
        is_done = torch.randint(10, size, generator=generator) < pairs[:, :, 1]
        signs = torch.randint(2, size, generator=generator)
        return torch.stack([pairs[:, :, 0] * is_done, pairs[:, :, 2], signs], dim=2).flatten(1)


def drawn(num_images: int, generator: torch.Generator, *limits: int) -> Tensor:
    """Return (N, len(limits)) of whole numbers from 0 to less than each of the limits."""
    columns = [torch.randint(limit, (num_images, 1), generator=generator) for limit in limits]
    return torch.cat(columns, dim=1)


def narrow(num_magnitudes: int, height: int, width: int) -> Space:
    """Return the space of AutoAugment, which RandAugment took over; shifts are parts of the side."""
    shifts = (LARGEST_SHIFT * width, LARGEST_SHIFT * height)
    return fourteen(num_magnitudes, shear=0.3, shifts=shifts, angle=30.0, blend=0.9, bits=4)


def fourteen(
    num_magnitudes: int, *, shear: float, shifts: tuple[float, float], angle: float, blend: float, bits: int
) -> Space:
    """Return the fourteen operations, whose magnitudes end at those given; `bits` are those that posterizing drops."""
    nothing = torch.zeros(num_magnitudes)
    ends = {"ShearX": shear, "ShearY": shear, "TranslateX": shifts[0], "TranslateY": shifts[1], "Rotate": angle}
    ends |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), blend)
    return {
        "Identity": nothing,
        **{name: torch.linspace(0.0, end, num_magnitudes) for name, end in ends.items()},
        "Posterize": 8 - (torch.arange(num_magnitudes) / ((num_magnitudes - 1) / bits)).round(),
        "Solarize": torch.linspace(255.0, 0.0, num_magnitudes),
        "AutoContrast": nothing,
        "Equalize": nothing,
    }

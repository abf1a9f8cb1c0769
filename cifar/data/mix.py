"""Training on mixtures of two images and of their labels: `cifar run mix=mixup`, `mix=cutmix`, `mix=both`.

Every image of a batch is mixed with the one before it in the whole batch, the first with the last; all of a batch in
the same way. The order is new in every epoch, so the pairs are random. As nothing depends on how a batch is divided
into parts or among processes, N processes train on the same mixtures as one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from cifar.base.limits import number, refuse_impossible, refuse_no_parts

UNIT = 2**24  # shares are whole multiples of 2 ** -24, so that float32 holds a share and its rest without rounding
LIMITS = {
    "alpha": number("a number from 0.001 to 1000", lambda value: 0.001 <= value <= 1000),
    "probability": number("a number from 0 to 1", lambda value: 0 <= value <= 1),
}


class Mix(Protocol):
    """What the loader asks of a mix."""

    def draw(self, num_batches: int, generator: torch.Generator) -> Tensor:
        """Return int64 (num_batches, K), the random choices of an epoch's batches; where K is 0, nothing is mixed."""

    def apply(self, inputs: Tensor, partners: Tensor, choices: Sequence[int]) -> tuple[Tensor, float]:
        """Return inputs (N, C, H, W) mixed with their partners, and the share that is left of their own, 0 to 1."""


@dataclass(frozen=True)
class Unmixed:
    """Leave the batches as they are."""

    def draw(self, num_batches: int, generator: torch.Generator) -> Tensor:
        """Return no choices."""
        return torch.empty((num_batches, 0), dtype=torch.int64)

    def apply(self, inputs: Tensor, partners: Tensor, choices: Sequence[int]) -> tuple[Tensor, float]:
        """Return the inputs."""
        return inputs, 1.0


@dataclass(frozen=True)
class Mixup:
    """Mix a batch, with a probability, as share * inputs + (1 - share) * partners; the share is Beta(alpha, alpha).

    Follows Zhang et al., arXiv:1710.09412.
    """

    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        refuse_impossible("mix", vars(self), LIMITS)

    def draw(self, num_batches: int, generator: torch.Generator) -> Tensor:
        """Return (num_batches, 1): the share in units of 2 ** -24."""
        return shares(self.alpha, self.probability, num_batches, generator)

    def apply(self, inputs: Tensor, partners: Tensor, choices: Sequence[int]) -> tuple[Tensor, float]:
        """Return the sums, and the share."""
        share = choices[0] / UNIT
        return (inputs if share == 1 else partners * (1 - share) + inputs * share), share


@dataclass(frozen=True)
class Cutmix:
    """Put, with a probability, a rectangle of the partners into a batch; 1 - Beta(alpha, alpha) is its area.

    It is as long as it is wide, compared with the image, and its centre is anywhere in it; what lies outside is cut
    off. Follows Yun et al., arXiv:1905.04899, section 3.1.
    """

    alpha: float = 1.0
    probability: float = 0.5

    def __post_init__(self) -> None:
        refuse_impossible("mix", vars(self), LIMITS)

    def draw(self, num_batches: int, generator: torch.Generator) -> Tensor:
        """Return (num_batches, 3): the share in units of 2 ** -24, two numbers for the centre's row and column."""
        drawn = shares(self.alpha, self.probability, num_batches, generator)
        return torch.cat([drawn, torch.randint(0, 2**31, (num_batches, 2), generator=generator)], dim=1)

    def apply(self, inputs: Tensor, partners: Tensor, choices: Sequence[int]) -> tuple[Tensor, float]:
        """Return the inputs with the rectangle, and what it leaves of them."""
        share, *centres = choices
        sizes = inputs.shape[2:]
        half = 0.5 * math.sqrt(1 - share / UNIT)
        bounds = []
        for centre, size in zip(centres, sizes, strict=True):
            middle, reach = centre % size, int(half * size)
            bounds.append((max(0, middle - reach), min(size, middle + reach)))
        (top, bottom), (left, right) = bounds
        mixed = inputs.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / math.prod(sizes)


@dataclass(frozen=True)
class OneOf:
    """Mix every batch in one of several ways, all equally likely."""

    parts: Sequence[Mix]

    def __post_init__(self) -> None:
        refuse_no_parts("mix.parts", self.parts, "draw", "apply")

    def draw(self, num_batches: int, generator: torch.Generator) -> Tensor:
        """Return which part it is, and the choices of all parts side by side."""
        which = torch.randint(len(self.parts), (num_batches, 1), generator=generator)
        return torch.cat([which, *(part.draw(num_batches, generator) for part in self.parts)], dim=1)

    def apply(self, inputs: Tensor, partners: Tensor, choices: Sequence[int]) -> tuple[Tensor, float]:
        """Return what the chosen part returns."""
        which, *others = choices
        first = sum(self.widths[:which])
        return self.parts[which].apply(inputs, partners, others[first : first + self.widths[which]])

    @cached_property
    def widths(self) -> list[int]:
        """How many choices each part has."""
        return [part.draw(1, torch.Generator()).shape[1] for part in self.parts]


def shares(alpha: float, probability: float, num_batches: int, generator: torch.Generator) -> Tensor:
    """Return int64 (num_batches, 1): with the probability a number from Beta(alpha, alpha), else 1, times 2 ** 24."""
    from scipy.special import betaincinv  # takes a while, and most runs mix nothing

    is_mixed, uniform = torch.rand((2, num_batches, 1), generator=generator, dtype=torch.float64)
    beta = torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy()))
    return torch.where(is_mixed < probability, (UNIT * beta).round().long(), UNIT)


def mixed_labels(labels: Tensor, partners: Tensor, share: float, num_classes: int) -> Tensor:
    """Return float32 (N, num_classes): `share` for the class in `labels`, (N,), the rest for that of the partners."""
    own, other = (torch.nn.functional.one_hot(each, num_classes).float() for each in (labels, partners))
    return other * (1 - share) + own * share

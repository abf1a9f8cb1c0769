"""What a trainer measures: single steps, and sums over steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether all values of all tensors are finite, which waits for the device once."""
    return not tensors or bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all())


class Step(NamedTuple):
    """What one step measured; `scale` is the factor on its loss, which only fp16 needs."""

    loss: float
    num_correct: float
    norm: float
    scale: float
    num_images: int

    @classmethod
    def of(cls, row: Sequence[float], num_images: int) -> "Step":
        """Return the step of a row (4,) of a window."""
        loss, num_correct, norm, scale = row
        return cls(loss, num_correct, norm, scale, num_images)

    @property
    def is_finite(self) -> bool:
        """Whether the loss and the norm of the gradient are."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)

    @property
    def is_overflow(self) -> bool:
        """Whether only the scaled gradient was too large: such a step is not taken, and the next has half the scale."""
        return math.isfinite(self.loss) and not math.isfinite(self.norm) and self.scale > 1


class Window:
    """The steps since the last logged one. What they measured stays on the device until `read`.

    `seconds` are those that the loop spent on them; the clock goes from `go`, or the window's beginning, to `halt`. A
    window that is made from a `state` waits for `go`.
    """

    def __init__(self, state: dict[str, Any] | None = None, device: torch.device | None = None) -> None:
        self.rows: list[Tensor] = []  # per step, (4,): loss, images classified correctly, norm of the gradient, scale
        self.sizes: list[int] = []  # images of each
        self.seconds, self.started_at = 0.0, perf_counter() if state is None else None
        if state is not None:
            self.rows, self.sizes, self.seconds = [*state["rows"].to(device)], [*state["sizes"]], state["seconds"]

    def go(self) -> None:
        """Let the clock go."""
        if self.started_at is None:
            self.started_at = perf_counter()

    def halt(self) -> None:
        """Let the clock stand."""
        if self.started_at is not None:
            self.seconds, self.started_at = self.seconds + perf_counter() - self.started_at, None

    @property
    def num_images(self) -> int:
        """Images of all steps."""
        return sum(self.sizes)

    def add(self, row: Tensor, num_images: int) -> None:
        """Count one step."""
        self.rows.append(row)
        self.sizes.append(num_images)

    def read(self) -> list[Step]:
        """Return the steps, which waits for the device, and halt."""
        rows: list[list[float]] = torch.stack(self.rows).tolist() if self.rows else []
        self.halt()
        return [Step.of(row, size) for row, size in zip(rows, self.sizes, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return what the constructor takes, on the CPU."""
        rows = torch.stack(self.rows).cpu() if self.rows else torch.empty((0, 4))
        running = 0.0 if self.started_at is None else perf_counter() - self.started_at
        return {"rows": rows, "sizes": self.sizes, "seconds": self.seconds + running}


@dataclass
class Totals:
    """Sums over the finite ones of some steps, in which every image weighs the same; how many were skipped."""

    num_steps: int = 0
    num_images: int = 0
    loss_sum: float = 0.0  # over images
    num_correct: float = 0.0
    norm_sum: float = 0.0
    num_skipped: int = 0

    @classmethod
    def of(cls, steps: Sequence[Step], num_skipped: int = 0) -> "Totals":
        """Return the sums over some finite steps."""
        return cls(
            len(steps),
            sum(step.num_images for step in steps),
            math.fsum(step.loss * step.num_images for step in steps),
            math.fsum(step.num_correct for step in steps),
            math.fsum(step.norm for step in steps),
            num_skipped,
        )

    def include(self, other: "Totals") -> None:
        """Add another's sums."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def note(self) -> str:
        """What the console says of skipped steps: nothing without any."""
        return f" ({self.num_skipped} steps skipped: not finite)" if self.num_skipped else ""

    @property
    def loss(self) -> float:
        """Mean over the images of finite steps, NaN without any."""
        return self.loss_sum / self.num_images if self.num_images else math.nan

    @property
    def accuracy(self) -> float:
        """Fraction of the images of finite steps that were classified correctly, NaN without any."""
        return self.num_correct / self.num_images if self.num_images else math.nan

    @property
    def grad_norm(self) -> float:
        """Mean over the finite steps, NaN without any."""
        return self.norm_sum / self.num_steps if self.num_steps else math.nan

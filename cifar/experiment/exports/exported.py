"""What an export is: one file's content, how to ask it, and the lines that use it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

INPUT, OUTPUT = "images", "probabilities"


@dataclass(frozen=True)
class Exported:
    """A file's `content`; `answer` gives what it says of images, as whoever reads the file finds out.

    That takes uint8 (N, 3, H, W) and gives float32 (N, classes). `lines` returns three lines of Python for a file at a
    path.
    """

    content: bytes
    answer: Callable[[Tensor], Tensor]
    lines: Callable[[str], tuple[str, str, str]]


@dataclass(frozen=True)
class Subject:
    """What is exported: the `classifier` in eval mode on the CPU, `size`, the images' height and width, and the facts.

    `new_model` returns the model as its code makes it, without the weights.
    """

    classifier: "Classifier"
    size: tuple[int, int]
    facts: dict[str, Any]
    new_model: Callable[[], nn.Module]

    @property
    def shape(self) -> str:
        """Return the shape of one image, as Python writes it."""
        return f"(1, 3, {self.size[0]}, {self.size[1]})"

    def whole_facts(self) -> dict[str, Any]:
        """Return the facts of a file that holds normalisation and softmax too."""
        height, width = self.size
        return {
            "input": f"{INPUT}: uint8 (N, 3, {height}, {width}), RGB",
            "output": f"{OUTPUT}: float32 (N, {len(self.facts['class_names'])})",
            **self.facts,
        }


class Classifier(nn.Module):
    """A model with all that stands before and behind it: uint8 images in, probabilities out.

    `mean` and `std` are per channel, for pixels as fractions of 255; the arithmetic is that of the training's loader.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, classes)
        """Return the softmax probabilities."""
        inputs = (images.to(torch.float32) / 255 - self.mean) / self.std
        logits: Tensor = self.model(inputs)
        return logits.softmax(dim=1)

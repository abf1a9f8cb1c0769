"""Small files of the form in which CIFAR-10.1 and CIFAR-10-C are published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_cifar10_1(folder: Path, num_images: int = 40) -> None:
    """Write version 6 of CIFAR-10.1, with so many images of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "cifar10.1_v6_data.npy", pixels)
    np.save(folder / "cifar10.1_v6_labels.npy", np.arange(num_images, dtype=np.int32) % 10)


def write_cifar10_c(folder: Path, corruptions: Sequence[str], num_images: int = 20) -> None:
    """Write CIFAR-10-C with some corruptions, with so many images of noise at each severity."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(2)
    for corruption in corruptions:
        np.save(folder / f"{corruption}.npy", generator.integers(0, 256, (5 * num_images, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(np.arange(num_images, dtype=np.uint8) % 10, 5))

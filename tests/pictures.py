"""Class folders of small pictures of every kind, as a user might have them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MODES = {"jpg": "RGB", "png": "RGBA", "gif": "P", "webp": "RGB", "bmp": "L", "tif": "I;16"}


def write_class_folders(root: Path, names: Sequence[str] = ("bird", "cat", "dog"), number: int = 12) -> Path:
    """Write so many pictures of noise, of several formats and sizes, into a folder for each name; return the root."""
    generator = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(number):
            suffix, mode = [*MODES.items()][index % len(MODES)]
            height, width = generator.integers(20, 60, 2)
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels)
            if mode == "I;16":
                picture = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
            (picture if mode == "I;16" else picture.convert(mode)).save(root / name / f"{index:02}.{suffix}")
    return root

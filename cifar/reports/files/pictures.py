"""Test images as pictures in a page: PNG files within the text, a few hundred bytes to a few kilobytes each."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_SIDE = 96  # pixels; larger images are shown smaller


@dataclass(frozen=True)
class Picture:
    """An image of the test set: the picture, what it is, what is said of it, and whether that is right."""

    source: str
    title: str
    text: str
    is_right: bool


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image, uint8 (3, H, W), as what stands in an img's src."""
    from PIL import Image

    picture, buffer = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), io.BytesIO()
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def pictures(
    images: NDArray[np.uint8],
    indices: Sequence[int],
    titles: Sequence[str],
    texts: Sequence[str],
    right: Sequence[bool],
) -> list[Picture]:
    """Return the images, uint8 (N, 3, H, W), at the indices, each with its words."""
    rows = zip(indices, titles, texts, right, strict=True)
    return [Picture(data_uri(images[index]), title, text, is_right) for index, title, text, is_right in rows]

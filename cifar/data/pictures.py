"""Pictures of any kind as the images that a model takes: arrays, tensors, Pillow's, files."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cifar.base.errors import UserError

ALLOWED = "uint8 pixels of shape (H, W, 3), (3, H, W), (N, H, W, 3) or (N, 3, H, W), Pillow images, or a list of these"


def as_images(pictures: Any, size: tuple[int, int]) -> Tensor:
    """Return one or many pictures as uint8 (N, 3, H, W) of `size`, height and width, on the CPU.

    Those of another size are resized as `fit` says. Raises `UserError` for what is no picture.
    """
    if isinstance(pictures, (list, tuple)):
        parts = [as_images(picture, size) for picture in pictures]
        return torch.cat(parts) if parts else torch.empty((0, 3, *size), dtype=torch.uint8)
    if isinstance(pictures, Image.Image):
        return pixels_of(fit(pictures, size))[None]
    images = channels_first(pictures)  # (N, 3, H, W)
    if tuple(images.shape[2:]) == size:
        return images
    return as_images([Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images], size)


def channels_first(pictures: Any) -> Tensor:
    """Return an array or a tensor of pixels as uint8 (N, 3, H, W); raise `UserError` if it is none."""
    if not isinstance(pictures, (np.ndarray, Tensor)):
        raise UserError(f"A {type(pictures).__name__} is no picture: it takes {ALLOWED}.")
    images = torch.from_numpy(pictures.copy()) if isinstance(pictures, np.ndarray) else pictures
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        raise UserError(
            f"Pictures of {images.dtype} are not possible: it takes uint8, pixels from 0 to 255, and normalises them."
        )
    shape = tuple(images.shape)
    if images.ndim == 3:
        images = images[None]
    is_last, is_first = images.ndim == 4 and images.shape[3] == 3, images.ndim == 4 and images.shape[1] == 3
    if is_last and is_first:
        raise UserError(f"Pictures of shape {shape} can be read in two ways: give them as Pillow images.")
    if not is_last and not is_first:
        raise UserError(f"Pictures of shape {shape} are not possible: it takes {ALLOWED}.")
    return images.contiguous() if is_first else images.permute(0, 3, 1, 2).contiguous()


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the picture in RGB with that height and width.

    It is turned as its EXIF data says, its transparent parts are white. One of another size loses what its longer side
    has too much at both ends, and is resized once, with Pillow's antialiased bicubic filter.
    """
    height, width = size
    upright = in_rgb(ImageOps.exif_transpose(picture))
    return (
        upright if upright.size == (width, height) else ImageOps.fit(upright, (width, height), Image.Resampling.BICUBIC)
    )


def in_rgb(picture: Image.Image) -> Image.Image:
    """Return the picture in 8-bit RGB, over white where it is transparent; raise `UserError` for unscaled floats."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F":
        raise UserError("a picture of floats has no known range: save it with 8 or 16 bits a channel")
    if picture.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would cut off at 255
        return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if "A" not in picture.getbands() and "a" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    layers = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def pixels_of(picture: Image.Image) -> Tensor:
    """Return an RGB picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def read_picture(path: Path, size: tuple[int, int]) -> Tensor:
    """Return the picture in a file, of several the first, as uint8 (3, H, W); raise `UserError` if it can't be read."""
    with without_warnings():
        return decoded(path, size)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Let Pillow warn of nothing, in all threads: what can't be read is an error, also what is far too large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decoded(path: Path, size: tuple[int, int]) -> Tensor:
    """Return what `read_picture` does; Pillow may warn."""
    try:
        with Image.open(path) as picture:
            return pixels_of(fit(picture, size))
    except UnidentifiedImageError:
        raise UserError(f"{path}: it is no picture, or is damaged.") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}.") from None

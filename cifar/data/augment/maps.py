"""Operations that move pixels: each is a map that says for every pixel of the result where it comes from.

There are few such maps for an image's size, one for every operation and magnitude. They are made once, as torchvision
finds the pixels (nearest neighbour, rounded in float32), and then looked up: so they are the same on every device.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def moved(images: Tensor, maps: Tensor) -> Tensor:
    """Return the pixels (N, C, H, W) to which the maps (N, H * W) point; H * W points outside, at black."""
    _, _, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H * W, C)
    batch = torch.arange(len(images), device=images.device)[:, None]
    found = F.pad(pixels, (0, 0, 0, 1))[batch, maps.long()]
    return found.view(len(images), height, width, -1).permute(0, 3, 1, 2)


def pixel_map(matrix: list[float], height: int, width: int) -> Tensor:
    """Return the map (H * W,) int32 for an affine `matrix`, 2 × 3, from a result's pixels to the image's.

    Both are measured in pixels from the centre.
    """
    across = torch.linspace(-width * 0.5 + 0.5, width * 0.5 - 0.5, width)
    down = torch.linspace(-height * 0.5 + 0.5, height * 0.5 - 0.5, height)
    centred = torch.stack([across.expand(height, width), down[:, None].expand(height, width)], dim=2)
    base = F.pad(centred, (0, 1), value=1.0).view(1, height * width, 3)
    scale = torch.tensor([0.5 * width, 0.5 * height])
    grid = base.bmm(torch.tensor(matrix).view(1, 2, 3).transpose(1, 2) / scale).view(1, height, width, 2)
    # Pixels are numbered from 1, as 0 is what lies outside; float32 holds the numbers of 4096 × 4096.
    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)
    found = F.grid_sample(numbers, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    places = found.flatten().to(torch.int32) - 1
    return torch.where(places < 0, height * width, places)


def shear_x(magnitude: float, height: int, width: int) -> Tensor:
    """Return the map that moves each row left by `magnitude` times its distance from the upper edge."""
    offset = (width * 0.5 + magnitude * height * 0.5) - width * 0.5
    return pixel_map([1.0, magnitude, offset, 0.0, 1.0, 0.0], height, width)


def shear_y(magnitude: float, height: int, width: int) -> Tensor:
    """Return the map that moves each column up by `magnitude` times its distance from the left edge."""
    offset = (magnitude * width * 0.5 + height * 0.5) - height * 0.5
    return pixel_map([1.0, 0.0, 0.0, magnitude, 1.0, offset], height, width)


def translate_x(magnitude: float, height: int, width: int) -> Tensor:
    """Return the map that moves the image right by `magnitude` pixels, cut off to a whole number."""
    return pixel_map([1.0, 0.0, -float(int(magnitude)), 0.0, 1.0, 0.0], height, width)


def translate_y(magnitude: float, height: int, width: int) -> Tensor:
    """Return the map that moves the image down by `magnitude` pixels, cut off to a whole number."""
    return pixel_map([1.0, 0.0, 0.0, 0.0, 1.0, -float(int(magnitude))], height, width)


def rotate(magnitude: float, height: int, width: int) -> Tensor:
    """Return the map that turns the image by `magnitude` degrees, counter-clockwise."""
    angle = math.radians(-magnitude)
    cosine, sine = math.cos(angle), math.sin(angle)
    return pixel_map([cosine, sine, 0.0, -sine, cosine, 0.0], height, width)

"""Operations that change the colours of whole batches, each image by a value of its own, as torchvision does.

All take and return uint8 (N, 3, H, W). Rounding is torchvision's, to the last grey level: so blending is done in
float32, and cut off, not rounded.
"""

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601


def blended(images: Tensor, others: Tensor | float, values: Tensor) -> Tensor:
    """Return share * images + rest * others, where `values`, (N, 2), has each image's share and rest."""
    share, rest = values[:, :, None, None, None].unbind(dim=1)  # (N, 1, 1, 1) each
    mixed: Tensor = share * images + rest * others
    return mixed.clamp_(0, 255).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """Return the brightness of every pixel, (N, 1, H, W), uint8."""
    red, green, blue = images.split(1, dim=1)
    level: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return level.to(torch.uint8)


def brightness(images: Tensor, values: Tensor) -> Tensor:
    """Blend with black."""
    return blended(images, 0.0, values)


def contrast(images: Tensor, values: Tensor) -> Tensor:
    """Blend with the mean brightness of the image."""
    return blended(images, grey(images).float().mean((1, 2, 3), keepdim=True), values)


def saturation(images: Tensor, values: Tensor) -> Tensor:
    """Blend with the image without its colours."""
    return blended(images, grey(images), values)


def sharpness(images: Tensor, values: Tensor) -> Tensor:
    """Blend with the image blurred by 1 1 1, 1 5 1, 1 1 1, of which only the edge is left as it is."""
    _, _, height, width = images.shape
    if min(height, width) <= 2:
        return images
    wide = images.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = (2 * sums + 13) // 26  # sums / 13, which is never halfway between two, rounded
    return blended(images, blurred, values)


def posterize(images: Tensor, values: Tensor) -> Tensor:
    """Keep the bits that are set in each image's mask, (N, 1)."""
    return images & values[:, :, None, None].to(torch.uint8)


def solarize(images: Tensor, values: Tensor) -> Tensor:
    """Invert the pixels from each image's threshold, (N, 1), on."""
    return torch.where(images >= values[:, :, None, None], 255 - images, images)


def autocontrast(images: Tensor, values: Tensor | None = None) -> Tensor:
    """Stretch every channel from its darkest and brightest pixel to 0 and 255; one of a single value stays."""
    low, high = (found((2, 3), keepdim=True).float() for found in (images.amin, images.amax))
    is_flat = low == high
    scale = torch.where(is_flat, 1.0, 255 / (high - low))
    return ((images - torch.where(is_flat, 0.0, low)) * scale).clamp_(0, 255).to(torch.uint8)


def equalize(images: Tensor, values: Tensor | None = None) -> Tensor:
    """Spread the values of every channel so that each is about equally frequent."""
    pixels = images.flatten(2).long()  # (N, 3, H * W)
    counts = torch.zeros((*pixels.shape[:2], 256), dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, pixels, torch.ones_like(pixels))
    num_others = pixels.shape[2] - counts.gather(2, pixels.amax(2, keepdim=True))  # than the brightest
    step = num_others // 255
    below = counts.cumsum(2) - counts  # pixels darker than each value
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    return torch.where(step == 0, pixels, table.gather(2, pixels)).view(images.shape).to(torch.uint8)


def invert(images: Tensor, values: Tensor | None = None) -> Tensor:
    """Return the negative."""
    return 255 - images


def identity(images: Tensor, values: Tensor | None = None) -> Tensor:
    """Return the images themselves."""
    return images

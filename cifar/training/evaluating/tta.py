"""Test-time augmentation, for every model: `cifar run tta=mirror_translate`.

The logits of several views of an image are averaged; the accuracy is reported beside the plain one, never instead.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def views(inputs: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """Return views of inputs (N, C, H, W) with their weights, the first the inputs themselves.

    "mirror" adds the mirror image. "mirror_translate" adds the image shifted by one pixel up and left, and by one down
    and right, each with its mirror image: six views, of which the unshifted ones weigh as much as the four others
    (K. Jordan, arXiv:2404.00498, section 3.5).
    """
    if tta == "none":
        return [(1.0, inputs)]
    if tta == "mirror":
        return [(0.5, inputs), (0.5, inputs.flip(3))]
    padded = F.pad(inputs, [1, 1, 1, 1], mode="reflect")
    shifted = [padded[:, :, 2:, 2:], padded[:, :, :-2, :-2]]
    both = [view for image in shifted for view in (image, image.flip(3))]
    return [(0.25, inputs), (0.25, inputs.flip(3)), *((0.125, view) for view in both)]


def mean_logits(model: Callable[[Tensor], Tensor], inputs: Tensor, tta: str) -> tuple[Tensor, Tensor]:
    """Return the model's logits (N, classes) for inputs (N, C, H, W), and their mean over the views of `tta`."""
    weights, images = zip(*views(inputs, tta), strict=True)
    outputs = [model(image) for image in images]
    return outputs[0], sum(weight * output.float() for weight, output in zip(weights, outputs, strict=True))

"""scikit-learn's handwritten digits, which need no download: `cifar run data=digits augment=none`."""

from dataclasses import dataclass

import torch

from cifar.base.errors import UserError
from cifar.data.images import Images
from cifar.data.splits import stratified_split

NAMES = tuple(map(str, range(10)))


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits, each pixel enlarged to 4×4 and repeated for three channels."""

    test_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.test_size <= 1700:
            raise UserError(f"data.source.test_size={self.test_size!r} is not possible: it takes 1 to 1700 images.")

    def load(self) -> Images:
        """Return the images; the test set is the same stratified choice every time."""
        from sklearn.datasets import load_digits  # a second, so only when used

        pixels, labels = load_digits(return_X_y=True)  # (1797, 64), 0 … 16
        images = torch.from_numpy(pixels).view(-1, 1, 8, 8).mul(255 / 16).round().to(torch.uint8)
        images = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).expand(-1, 3, -1, -1).contiguous()
        targets = torch.from_numpy(labels).to(torch.int64)
        train, test = stratified_split(targets, self.test_size, seed=0)
        return Images(images[train], targets[train], images[test], targets[test], [*NAMES])

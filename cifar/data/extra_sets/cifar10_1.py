"""CIFAR-10.1 v6: 2,000 new images of CIFAR-10's classes (Recht et al., arXiv:1806.00451): `test_on=[cifar10_1]`."""

from collections.abc import Iterator
from dataclasses import dataclass

from cifar.base.errors import UserError
from cifar.data.extra_sets.extra_set import Part, find_files, read_array, read_part
from cifar.data.sources.cifar10 import NAMES

KEY = "test_on.cifar10_1"
FILES = ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy")
FROM = "https://github.com/modestyachts/CIFAR-10.1 (its folder datasets)"


@dataclass(frozen=True)
class CIFAR10_1:  # noqa: N801 – the name of the data set
    """The two files of version 6, in `root` or in CIFAR-10.1 in it."""

    root: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """CIFAR-10's."""
        return NAMES

    def refuse_missing(self) -> None:
        """Raise `UserError` if a file is not there."""
        find_files(KEY, self.root, "CIFAR-10.1", FILES, FROM)

    def parts(self) -> Iterator[Part]:
        """Yield all images."""
        paths = find_files(KEY, self.root, "CIFAR-10.1", FILES, FROM)
        images, labels = read_array(paths[0], "(N, 32, 32, 3)"), read_array(paths[1], "(N,)")
        if len(images) != len(labels) or not 0 <= labels.min() <= labels.max() < len(NAMES):
            raise UserError(f"{paths[1]} holds no label from 0 to 9 for each of the {len(images):,} images.")
        yield read_part(images, labels)

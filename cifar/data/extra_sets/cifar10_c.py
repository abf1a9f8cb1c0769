"""CIFAR-10-C: CIFAR-10's test images, corrupted (Hendrycks & Dietterich, arXiv:1903.12261): `test_on=[cifar10_c]`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar.base.errors import UserError
from cifar.data.extra_sets.extra_set import Part, find_files, read_array, read_part
from cifar.data.sources.cifar10 import NAMES

KEY = "test_on.cifar10_c"
NUM_LEVELS = 5  # each file has all images at severity 1, then all at 2, …
LABELS = "labels.npy"
FROM = "https://zenodo.org/records/2535967 (CIFAR-10-C.tar, unpacked)"


@dataclass(frozen=True)
class CIFAR10_C:  # noqa: N801 – the name of the data set
    """A file for each of the `corruptions`, at some `severities` from 1 to 5, in `root` or in CIFAR-10-C in it."""

    root: str
    corruptions: Sequence[str]
    severities: Sequence[int]

    def __post_init__(self) -> None:
        if isinstance(self.corruptions, str) or not self.corruptions:
            raise UserError(f"{KEY}.corruptions={self.corruptions!r} is not possible: it takes a list, such as [fog].")
        is_list = isinstance(self.severities, (list, tuple))
        if not is_list or not self.severities or not {*self.severities} <= {*range(1, NUM_LEVELS + 1)}:
            raise UserError(f"{KEY}.severities={self.severities!r} is not possible: it takes a list of 1 to 5.")

    @property
    def class_names(self) -> tuple[str, ...]:
        """CIFAR-10's."""
        return NAMES

    def refuse_missing(self) -> None:
        """Raise `UserError` if a file is not there."""
        self.paths()

    def paths(self) -> list[Path]:
        """Return the paths of the labels and of each corruption."""
        names = [LABELS, *(f"{corruption}.npy" for corruption in self.corruptions)]
        return find_files(KEY, self.root, "CIFAR-10-C", names, FROM)

    def parts(self) -> Iterator[Part]:
        """Yield the images of each corruption at each severity."""
        labels_path, *paths = self.paths()
        labels = read_array(labels_path, "(N,)")
        size = len(labels) // NUM_LEVELS
        if len(labels) % NUM_LEVELS or not 0 <= labels.min() <= labels.max() < len(NAMES):
            raise UserError(f"{labels_path} holds {len(labels):,} numbers, and not five times the labels from 0 to 9.")
        for corruption, path in zip(self.corruptions, paths, strict=True):
            images = read_array(path, "(N, 32, 32, 3)")
            if len(images) != len(labels):
                raise UserError(f"{path} holds {len(images):,} images, and {labels_path} {len(labels):,} labels.")
            for severity in self.severities:
                place = slice((severity - 1) * size, severity * size)
                yield read_part(images[place], labels[place], corruption, severity)

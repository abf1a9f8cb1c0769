"""SVHN's cropped house numbers (Netzer et al. 2011): `cifar run data=svhn`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar.base.errors import UserError
from cifar.base.paths import absolute
from cifar.data.files.downloads import Published, describe_damage, download, file_md5, refuse_one_mirror
from cifar.data.files.keeping import Stamps, cache_folder, kept, stamps_of
from cifar.data.images import Images

log = logging.getLogger(__name__)

NAMES = tuple(map(str, range(10)))
WAYS_OUT = (
    "Ways on: set data.root to a folder that holds train_32x32.mat and test_32x32.mat, name another mirror with "
    "'data.source.mirrors=[URL]', to which the files' names are added, or use data=digits, which needs no download."
)


@dataclass(frozen=True)
class SVHN:
    """The training and test files of 32×32 pixels under `root`, downloaded from the first of `mirrors` that delivers.

    Unless the folder `cache` is None, the decoded images are kept in it.
    """

    root: str
    mirrors: Sequence[str]
    cache: str | None

    def __post_init__(self) -> None:
        refuse_one_mirror(self.mirrors)

    def load(self) -> Images:
        """Return the verified images; raise `UserError` naming the file that is missing, damaged or unwritable."""
        root, files = absolute(self.root), official_files()
        paths = [root / file.filename for file in files]
        try:
            for path, file in zip(paths, files, strict=True):
                if not path.exists():
                    urls = [f"{mirror.rstrip('/')}/{file.filename}" for mirror in self.mirrors]
                    download(root, file, urls, WAYS_OUT)
            return read_once(tuple(paths), stamps_of(paths), cache_folder(self.cache))
        except OSError as error:
            raise UserError(f"SVHN in {root} can't be read or written: {error}.\n{WAYS_OUT}") from error


def official_files() -> list[Published]:
    """Return the training and the test file, whose md5 torchvision knows."""
    from torchvision import datasets  # seconds, so only when used

    entries = [datasets.SVHN.split_list[part] for part in ("train", "test")]
    return [Published(filename=name, md5=md5, result=name) for _, name, md5 in entries]


@lru_cache(maxsize=1)
def read_once(paths: tuple[Path, ...], stamps: Stamps, cache: Path | None) -> Images:
    """Return the verified images, which a sweep's jobs in one process share while the files' `stamps` are equal."""
    log.info(f"Reading SVHN in {paths[0].parent} …")
    key: list[Any] = [[str(path.resolve()) for path in paths], stamps]
    return kept(None if cache is None else cache / "svhn.pt", key, lambda: read_files(paths))


def read_files(paths: Sequence[Path]) -> Images:
    """Return the images of the files, after their md5 is verified."""
    md5s = [(file.filename, file.md5) for file in official_files()]
    if any(file_md5(path) != md5 for path, (_, md5) in zip(paths, md5s, strict=True)):
        raise UserError(describe_damage(paths[0].parent, md5s, WAYS_OUT, "it"))
    (train_images, train_labels), (test_images, test_labels) = map(read_file, paths)
    return Images(train_images, train_labels, test_images, test_labels, [*NAMES])


def read_file(path: Path) -> tuple[Tensor, Tensor]:
    """Return the images (N, 3, 32, 32) and labels (N,) of a file, in which the digit 0 has the label 10."""
    from scipy.io import loadmat

    content = loadmat(path)
    images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
    return images, torch.from_numpy(content["y"].astype("int64")).flatten() % 10

"""One's own pictures, a folder a class: `cifar run data=folder data.root=pictures`.

Either `pictures/cat/1.jpg …`, of which some are held out to test with, or `pictures/train/cat/1.jpg …` and
`pictures/test/cat/9.jpg …`.
"""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import PIL
import torch
from torch import Tensor
from tqdm import tqdm

from cifar.base.errors import UserError
from cifar.base.limits import Limit, number, refuse_impossible, whole_number
from cifar.base.shares import num_cores
from cifar.data.files.class_folders import ClassFolders, Entry, find_pictures, listed
from cifar.data.files.keeping import cache_folder, kept
from cifar.data.images import Images
from cifar.data.pictures import decoded, without_warnings
from cifar.data.splits import stratified_split

log = logging.getLogger(__name__)

CHUNK = 1000  # pictures that are read before a Ctrl-C is heard
STOP, SKIP = "stop", "skip"
LIMITS = {
    "size": whole_number(4, 1024, " of pixels"),
    "test_fraction": number("a number more than 0 and at most 0.5", lambda value: 0 < value <= 0.5),
    "on_broken": Limit(f"{STOP} or {SKIP}", lambda value: value in (STOP, SKIP)),
}


@dataclass(frozen=True)
class ImageFolder:
    """The pictures below `root`, of any size and format, cut and resized once to `size` by `size` pixels.

    Where no pictures stand apart to test with, `test_fraction` of each class is held out, the same ones every time; a
    class with one picture keeps it. With `on_broken` "skip", pictures that can't be read are left out. `content`
    stands for the files that are meant, None for any. Unless the folder `cache` is None, the images are kept in it.
    """

    root: str
    size: int
    test_fraction: float
    on_broken: str
    content: str | None
    cache: str | None

    def __post_init__(self) -> None:
        refuse_impossible("data.source", vars(self), LIMITS)

    def load(self) -> Images:
        """Return the images; raise `UserError` for a folder that can't be meant and for pictures that can't be read."""
        folders = find_pictures(self.root)
        if self.content not in (None, folders.content):
            raise UserError(
                f"data.root={self.root} has other pictures than are meant: their names and sizes come to "
                f"{folders.content}, but data.source.content={self.content}. For any pictures: data.source.content=null"
            )
        return read_once(folders, self.size, self.test_fraction, self.on_broken, cache_folder(self.cache))


@lru_cache(maxsize=1)
def read_once(folders: ClassFolders, size: int, test_fraction: float, on_broken: str, cache: Path | None) -> Images:
    """Return the images, which a sweep's jobs in one process share while the files are the same."""
    if folders.others:
        log.warning(f"Files that are no pictures by their names are not used: {shortened(folders.others)}")
    name = hashlib.sha256(f"{folders.root.resolve()} {size}".encode(errors="surrogateescape")).hexdigest()[:16]
    path = None if cache is None else cache / f"folder-{name}.pt"
    files = hashlib.sha256(repr(folders).encode(errors="backslashreplace")).hexdigest()
    key = [files, size, test_fraction, on_broken, PIL.__version__]
    return kept(path, key, lambda: read(folders, size, test_fraction, on_broken))


def read(folders: ClassFolders, size: int, test_fraction: float, on_broken: str) -> Images:
    """Return the images, every picture decoded."""
    parts = [folders.train, folders.test or ()]
    images, is_good = decode_all(folders.root, [entry for part in parts for entry in part], size, on_broken)
    labels = torch.tensor([entry[1] for part in parts for entry in part])
    is_training = torch.arange(len(labels)) < len(folders.train)
    train, test = (torch.nonzero(is_good & is_meant).flatten() for is_meant in (is_training, ~is_training))
    names = folders.names
    if gone := [name for number, name in enumerate(names) if number not in labels[train]]:
        raise UserError(f"data.root={folders.root}: no picture of {', '.join(gone)} can be read.")
    if folders.test is None:
        train, test = held_out(train, labels[train], test_fraction, names)
    if not len(test):
        raise UserError(f"data.root={folders.root}: no picture to test with can be read.")
    return Images(images[train], labels[train], images[test], labels[test], [*names])


def held_out(indices: Tensor, labels: Tensor, fraction: float, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return the indices to train on and those to test with, for indices with labels, both (N,).

    Of a class with two pictures or more at least one is left to train on, as the fraction is at most a half.
    """
    counts = torch.bincount(labels, minlength=len(names))
    if alone := [name for name, count in zip(names, counts.tolist(), strict=True) if count == 1]:
        log.warning(f"One picture only, which is trained on and not tested: {shortened(alone)}")
    several = torch.nonzero(counts[labels] > 1).flatten()
    _, chosen = stratified_split(labels[several], max(1, round(fraction * len(several))) if len(several) else 0, seed=0)
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    is_held_out[several[chosen]] = True
    if not is_held_out.any():
        raise UserError("No class has two pictures, so none can be held out to test with.")
    return indices[~is_held_out], indices[is_held_out]


def decode_all(root: Path, entries: list[Entry], size: int, on_broken: str) -> tuple[Tensor, Tensor]:
    """Return the pictures as uint8 (N, 3, size, size), and which of them could be read, (N,).

    Raises `UserError` naming all that can't, unless they are to be skipped.
    """
    images = torch.zeros((len(entries), 3, size, size), dtype=torch.uint8)
    broken: dict[int, str] = {}

    def read_into(place: int) -> None:
        try:
            images[place] = decoded(root / entries[place][0], (size, size))
        except UserError as error:
            broken[place] = str(error)

    log.info(f"Reading {len(entries):,} pictures in {root} …")
    with without_warnings(), ThreadPoolExecutor(num_cores()) as pool:
        for start in tqdm(range(0, len(entries), CHUNK), "Reading pictures", unit=f" × {CHUNK}", disable=None):
            for _ in pool.map(read_into, range(start, min(start + CHUNK, len(entries)))):
                pass
    is_good = torch.ones(len(entries), dtype=torch.bool)
    is_good[[*broken]] = False
    if broken:
        text = f"data.root={root}: {len(broken)} of {len(entries):,} pictures can't be read:\n  "
        text += "\n  ".join(broken[place] for place in sorted(broken))
        if on_broken == STOP:
            raise UserError(f"{text}\nMend them or take them away, or leave them out: data.source.on_broken=skip")
        log.warning(f"{text}\nThey are left out.")
    return images, is_good


def shortened(names: tuple[str, ...] | list[str]) -> str:
    """Return names for a message."""
    return listed([*names], Path())

"""The python batches in which CIFAR-10 and CIFAR-100 are published, and which torchvision verifies."""

import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cifar.base.errors import UserError
from cifar.base.paths import absolute, why_no_file
from cifar.data.files.downloads import Published, describe_damage, download
from cifar.data.files.keeping import Stamps, cache_folder, kept, stamps_of
from cifar.data.images import Images

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batches:
    """A data set of this form: its `name` for people, its `folder`, and the name of torchvision's class for it.

    `first` is a file by which its folder is known. `labels` are the keys in the files of other labels than those that
    torchvision reads, and of their names. `stem` names the file of the decoded images.
    """

    name: str
    folder: str
    dataset: str
    first: str
    stem: str
    labels: tuple[str, str] | None = None

    def torchvision(self) -> Any:
        """Return torchvision's class, whose import takes seconds."""
        from torchvision import datasets

        return getattr(datasets, self.dataset)

    @property
    def ways_out(self) -> str:
        """What to do where there are no images."""
        return (
            f"Ways on: set CIFAR10_ROOT (or data.root) to a folder that holds {self.folder}, "
            "name another mirror with 'data.source.mirrors=[URL]', or use data=digits, which needs no download."
        )


def load_batches(batches: Batches, given: str, mirrors: Sequence[str], cache: str | None) -> Images:
    """Return the verified images under the root that was `given`, downloaded if they are absent.

    Raises `UserError` naming the file that is missing, damaged or unwritable.
    """
    root = find_root(given, batches)
    folder = root / batches.folder
    try:
        if not folder.exists():
            official = batches.torchvision()
            published = Published(official.filename, official.tgz_md5, batches.folder)
            download(root, published, mirrors, batches.ways_out)
        return read_once(batches, root, stamps_of(sorted(folder.glob("*"))), cache_folder(cache))
    except RuntimeError as error:  # torchvision's integrity check, which does not say which file it was
        raise UserError(describe_damage(folder, official_md5s(batches), batches.ways_out)) from error
    except OSError as error:
        raise UserError(f"{batches.name} in {root} can't be read or written: {error}.\n{batches.ways_out}") from error


def find_root(given: str, batches: Batches) -> Path:
    """Return the folder that holds the batches' folder, or may come to hold it; the batches' folder itself will do.

    Raises `UserError` for one that can't be meant.
    """
    try:
        root = absolute(given)
    except UserError as error:
        raise UserError(f"data.root={error}\n{batches.ways_out}") from None
    folder = root / batches.folder
    if folder.exists():
        return root
    if root.name == batches.folder and root.is_dir():
        return root.parent
    if (root / batches.first).is_file():
        raise UserError(
            f"data.root={root} holds {batches.name}'s files themselves: name their folder {batches.folder}."
        )
    if " is a link " in (problem := why_no_file(str(folder))):  # to download in its place is not what was meant
        raise UserError(f"data.root={given} is not possible: {problem}.\n{batches.ways_out}")
    return root


@lru_cache(maxsize=1)
def read_once(batches: Batches, root: Path, stamps: Stamps, cache: Path | None) -> Images:
    """Return the verified images, which a sweep's jobs in one process share while the files' `stamps` are equal."""
    log.info(f"Reading {batches.name} in {root} …")
    path = None if cache is None else cache / f"{batches.stem}.pt"
    return kept(path, [str(root.resolve()), stamps], lambda: read_batches(batches, root))


def read_batches(batches: Batches, root: Path) -> Images:
    """Return the images of the batches, whose md5 torchvision verifies."""
    official = batches.torchvision()
    train, test = official(root, train=True), official(root, train=False)
    labels, names = [train.targets, test.targets], train.classes
    if batches.labels is not None:
        key, key_of_names = batches.labels
        files = [[name for name, _ in part] for part in (official.train_list, official.test_list)]
        labels = [[label for name in part for label in unpickled(root, batches, name)[key]] for part in files]
        names = unpickled(root, batches, official.meta["filename"])[key_of_names]
    return Images(
        train_images=torch.from_numpy(train.data).permute(0, 3, 1, 2).contiguous(),
        train_labels=torch.tensor(labels[0]),
        test_images=torch.from_numpy(test.data).permute(0, 3, 1, 2).contiguous(),
        test_labels=torch.tensor(labels[1]),
        class_names=list(names),
    )


def unpickled(root: Path, batches: Batches, name: str) -> Any:
    """Return what a file of the batches holds, whose md5 torchvision has verified: such a file could run code."""
    with (root / batches.folder / name).open("rb") as file:
        return pickle.load(file, encoding="latin1")


def official_md5s(batches: Batches) -> list[tuple[str, str]]:
    """Return the names and md5s of all files of the batches."""
    official = batches.torchvision()
    return [*official.train_list, *official.test_list, (official.meta["filename"], official.meta["md5"])]

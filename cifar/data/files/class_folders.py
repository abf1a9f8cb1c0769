"""Folders of pictures, one a class: which classes there are and which files, without reading one.

Nothing here imports torch: the number of classes is known while the configuration is composed.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cifar.base.errors import UserError
from cifar.base.paths import absolute, why_no_file
from cifar.data.picture_files import is_picture_name

HOW = "data=folder takes a folder that has a subfolder of pictures for each class: data.root=FOLDER."
MAX_NAMED = 10  # folders in a message
TRAIN, TEST = "train", "test"

Entry = tuple[str, int, int, int]  # path below the root, number of the class, bytes, time of change in nanoseconds


@dataclass(frozen=True)
class ClassFolders:
    """The pictures below `root`: to train on, and to test with, if they stand apart; a class is a number of `names`.

    `others` are files that are no pictures by their names.
    """

    root: Path
    names: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...] | None
    others: tuple[str, ...]

    @property
    def content(self) -> str:
        """16 hexadecimal digits that are equal for folders of the same files, by their names and sizes."""
        entries = [entry[:3] for entry in (*self.train, *(self.test or ()))]
        text = repr([*map(os.fsencode, self.names), *((os.fsencode(name), *rest) for name, *rest in entries)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def num_classes_in(given: str) -> int:
    """Return how many classes the folder has; raise `UserError` if that can't be meant."""
    return len(class_names(training_folder(find_root(given))))


def content_of(given: str) -> str:
    """Return what stands for the names and sizes of the pictures in a folder, which is asked for again and again."""
    folders = tuple((path, os.stat(path).st_mtime_ns) for path, _, _ in os.walk(find_root(given)))
    return content_once(given, folders)


@lru_cache(maxsize=8)
def content_once(given: str, folders: tuple[tuple[str, int], ...]) -> str:
    """Do what `content_of` says, once while the folders' times of change are the same: files have come or gone then."""
    return find_pictures(given).content


def find_pictures(given: str) -> ClassFolders:
    """Return the pictures in a folder; raise `UserError` if a class has none, or if the folder can't be meant."""
    root = find_root(given)
    base = training_folder(root)
    names = class_names(base)
    others: list[str] = []
    train = entries_in(base, names, root, others)
    if empty := [name for number, name in enumerate(names) if number not in {entry[1] for entry in train}]:
        raise UserError(
            f"data.root={root}: there is no picture in {listed(empty, base)}. Put some in, or take it away."
        )
    test = None
    if (root / TEST).is_dir() and base != root:
        if unknown := [name for name in subfolders(root / TEST) if name not in names]:
            raise UserError(f"data.root={root}: {listed(unknown, root / TEST)} is no class, as {base} has none of it.")
        test = entries_in(root / TEST, names, root, others)
        if not test:
            raise UserError(
                f"data.root={root}: there is no picture in {root / TEST}. Without that folder some are held out."
            )
    return ClassFolders(root, tuple(names), tuple(train), None if test is None else tuple(test), tuple(others))


def find_root(given: str) -> Path:
    """Return the folder; raise `UserError` if it is none."""
    root = absolute(given)
    if not root.is_dir():
        reason = "it is a file" if root.is_file() else why_no_file(given).replace("no such file", "no such folder")
        raise UserError(f"data.root={given}: {reason}. {HOW}")
    return root


def training_folder(root: Path) -> Path:
    """Return the folder of the class folders: the root, or `train` in it, if that has folders and not pictures."""
    return root / TRAIN if subfolders(root / TRAIN) else root


def class_names(folder: Path) -> list[str]:
    """Return the names of the class folders in order; raise `UserError` if there are fewer than two."""
    names = subfolders(folder)
    if len(names) < 2:
        has = f"it has one subfolder, {names[0]}" if names else "it has no subfolders"
        raise UserError(f"data.root={folder}: {has}, and there must be two classes at least. {HOW}")
    return names


def subfolders(folder: Path) -> list[str]:
    """Return the names of a folder's subfolders in order, hidden ones left out; none if there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def entries_in(base: Path, names: list[str], root: Path, others: list[str]) -> list[Entry]:
    """Return the pictures in the class folders below `base`, also deeper, in order; add other files to `others`."""
    found: list[Entry] = []
    for number, name in enumerate(names):
        for folder, inner, files in os.walk(base / name):
            inner[:] = sorted(part for part in inner if not part.startswith("."))
            for file in sorted(file for file in files if not file.startswith(".")):
                path = Path(folder, file)
                if is_picture_name(file) and path.is_file():
                    stamp = path.stat()
                    found.append((str(path.relative_to(root)), number, stamp.st_size, stamp.st_mtime_ns))
                else:
                    others.append(str(path.relative_to(root)))
    return found


def listed(names: list[str], folder: Path) -> str:
    """Return subfolders for a message."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(str(folder / name) for name in names[:MAX_NAMED]) + more

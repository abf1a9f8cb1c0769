"""Decoded images that are kept in one file with a checksum, so that the next process starts sooner."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cifar.base.errors import UserError
from cifar.base.locks import locked
from cifar.base.paths import absolute
from cifar.base.run_folder import write_atomically
from cifar.base.sealed import read_checkpoint, sealed
from cifar.data.images import Images

Stamps = tuple[tuple[int, int, int], ...]  # inode, bytes and time of change of each file


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Return what tells whether files have changed."""
    return tuple((stamp.st_ino, stamp.st_size, stamp.st_mtime_ns) for stamp in (path.stat() for path in paths))


def cache_folder(given: str | None) -> Path | None:
    """Return the folder to keep images in; None if none was given, or if it is a home folder that is not there."""
    with suppress(UserError):
        return None if given is None else absolute(given)
    return None


def kept(path: Path | None, key: list[Any], read: Callable[[], Images]) -> Images:
    """Return the images that the file `path` holds, if they were kept under the same `key`; else read and keep them.

    Where nothing can be kept they are read each time; so they are where `path` is None.
    """
    if path is None:
        return read()
    folder, key = path.parent, [*key, [*Images.__annotations__]]
    remove_leftovers(folder)
    with suppress(UserError, OSError):  # there is none, it is damaged, or somebody else's
        content = read_checkpoint(path, must_be_sealed=True)
        if content.pop("key", None) == key:
            return Images(**content)
    images = read()
    with suppress(OSError, NotImplementedError, UserError), locked(folder):  # no place, not allowed, another does it
        write_atomically(path, lambda file: file.write(sealed({"key": key, **vars(images)})))
    return images


def remove_leftovers(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote, unless one is writing now."""
    with suppress(OSError, NotImplementedError, UserError):
        if any(folder.glob(".*.tmp")):
            with locked(folder):  # does it
                pass

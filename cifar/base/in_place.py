"""Files that a run writes in place: opened without following links, and watched, because others may move them away."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from cifar.base.errors import UserError

IN_PLACE = (".lock", ".lock-owner", "metrics.jsonl", "run.log")
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has none, nor links that anybody may make


def no_links(path: str, flags: int) -> int:
    """Open a file as `open` asks its opener to; `OSError` if the path is a symbolic link."""
    return os.open(path, flags | NO_LINKS, 0o666)


def refuse_links(folder: Path) -> None:
    """Raise `UserError` if a file of the run's folder that is written in place is a link to another file."""
    for name in IN_PLACE:
        if (folder / name).is_symlink():
            raise UserError(
                f"{folder / name} is a link to another file, which would be overwritten. If you trust this folder, put "
                "the file in the link's place; else remove the link."
            )


class RunLog(logging.FileHandler):
    """Write run.log, which is made with the first line; through a link nothing is written, as `refuse_links` says."""

    def __init__(self, filename: str, mode: str = "a", **options: Any) -> None:
        super().__init__(filename, mode, **{**options, "delay": True})

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            descriptor = no_links(self.baseFilename, flags)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            descriptor = os.open(os.devnull, os.O_WRONLY)
        return os.fdopen(descriptor, "a", encoding=self.encoding or "utf-8", errors=self.errors)


class Watched:
    """A file that is there and must stay the same one: it is known by its inode."""

    def __init__(self, path: Path) -> None:
        self.path, self.identity = path, identity(path)

    def is_same(self) -> bool:
        """Return whether the file, if it was there, has not been removed or replaced."""
        return self.identity is None or identity(self.path) == self.identity

    def check(self) -> None:
        """Raise `UserError` if the file has been removed or replaced."""
        if not self.is_same():
            raise UserError(
                f"{self.path} has been removed or replaced by another program, so another run may be at work in this "
                "folder. This one stops; what it had saved is there."
            )

    def append(self) -> IO[bytes]:
        """Open the file, which is still the same one, for appending."""
        self.check()
        return open(self.path, "ab", opener=lambda path, flags: no_links(path, flags & ~os.O_CREAT))


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file from others, None if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Write what is logged into the folder's run.log too, as Hydra does for its jobs."""
    handler = RunLog(str(folder / "run.log"))
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()

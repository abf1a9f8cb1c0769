"""Which files are pictures, by their names; nothing here imports torch."""

import os
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")


def picture_files(words: Sequence[str | Path]) -> list[Path]:
    """Return the files that the words name, and of folders all pictures in them, also deeper, in order of their names.

    A file that a word names is returned whether it is there or not.
    """
    found: list[Path] = []
    for word in map(Path, words):
        if not word.is_dir():
            found.append(word)
            continue
        for folder, subfolders, names in os.walk(word):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            found += [Path(folder, name) for name in sorted(names) if is_picture_name(name)]
    return [*dict.fromkeys(found)]


def is_picture_name(name: str) -> bool:
    """Return whether a file's name is a picture's."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")

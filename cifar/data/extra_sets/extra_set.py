"""More test sets for a trained model, each beside this module: `cifar run test_on=[cifar10_1,cifar10_c]`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifar.base.errors import UserError
from cifar.base.paths import absolute

NUM_NAMED = 5  # files in a message


@dataclass(frozen=True)
class Part:
    """Some images of a set, uint8 (N, 3, H, W), and their labels, int64 (N,): a `kind` of them at a `level`, if any."""

    images: Tensor
    labels: Tensor
    kind: str = ""
    level: int = 0


class ExtraSet(Protocol):
    """What the experiment asks of such a set; it checks its arguments when it is built."""

    @property
    def class_names(self) -> Sequence[str]:
        """The classes' names, in the order of the labels."""

    def refuse_missing(self) -> None:
        """Raise `UserError` if a file is not there, with where to get it and where to put it."""

    def parts(self) -> Iterator[Part]:
        """Read the parts one after the other, so that not all need to be in the memory at once."""


def find_files(key: str, root: str, folder: str, names: Sequence[str], from_where: str) -> list[Path]:
    """Return the paths of files that lie in `root`, or in `folder` in it.

    Raises `UserError` naming those that are missing, with the set's `key` and where they come from.
    """
    place = absolute(root)
    places = [place, place / folder]
    found = max(places, key=lambda path: sum((path / name).is_file() for name in names))
    if missing := [name for name in names if not (found / name).is_file()]:
        more = f" and {len(missing) - NUM_NAMED} more" if len(missing) > NUM_NAMED else ""
        raise UserError(
            f"{key}: {', '.join(missing[:NUM_NAMED])}{more} can't be found in {places[0]} or {places[1]}. "
            f"Get {folder} from {from_where} and put it there, or name its folder: {key}.root=FOLDER"
        )
    return [found / name for name in names]


def read_array(path: Path, shape: str) -> NDArray[Any]:
    """Return the array in a .npy file, which is read where it is used; raise `UserError` if there is none.

    `shape` is what it has to be: "(N, 32, 32, 3)" of uint8, or "(N,)" of whole numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    is_good = array.ndim == 1 and array.dtype.kind in "iu"
    if shape != "(N,)":
        is_good = array.ndim == 4 and array.shape[1:] == (32, 32, 3) and array.dtype == np.uint8
    if not is_good or not len(array):
        raise UserError(f"{path} holds {array.dtype} of shape {array.shape}, and not {shape}.")
    found: NDArray[Any] = array
    return found


def read_part(images: NDArray[Any], labels: NDArray[Any], kind: str = "", level: int = 0) -> Part:
    """Return the part for images (N, H, W, 3) and labels (N,)."""
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous()
    return Part(pixels, torch.from_numpy(np.array(labels, dtype=np.int64)), kind, level)


def of_run(part: Part, names: Sequence[str], run_names: Sequence[str]) -> Part:
    """Return the images of the classes that a run knows, all of which are among the `names`, with its numbers."""
    numbers = torch.tensor([run_names.index(name) if name in run_names else -1 for name in names])
    labels = numbers[part.labels]
    return replace(part, images=part.images[labels >= 0], labels=labels[labels >= 0])

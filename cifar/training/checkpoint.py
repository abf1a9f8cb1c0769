"""Checkpoints that tell whether they are intact.

A run keeps the last few in its folder, sealed as cifar/base/sealed.py says.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import nn

from cifar.base.errors import UserError
from cifar.base.run_folder import write_atomically
from cifar.base.sealed import DamagedError, read_checkpoint, sealed

log = logging.getLogger(__name__)

BEST = "best.pt"  # the weights with the best validation accuracy, if they are kept
NUM_NAMED = 3  # keys that an error message names before it says how many more there are


class Checkpoints:
    """The last `keep` checkpoints of a run in `folder`: checkpoint.pt, then checkpoint-1.pt, the one before, …

    One is due every `every_epochs` epochs and `every_minutes` minutes; None: never for that reason. `way_on` is the
    command that goes on from them.
    """

    def __init__(
        self, folder: Path, every_epochs: int | None, every_minutes: float | None, keep: int, way_on: str = ""
    ) -> None:
        self.folder, self.every_epochs, self.every_minutes, self.keep = folder, every_epochs, every_minutes, keep
        self.way_on = way_on
        self.wait()

    def wait(self) -> None:
        """Let the next one be due by time when `every_minutes` have passed from now on."""
        self.saved_at = monotonic()

    def exist(self) -> bool:
        """Return whether there is one."""
        return bool(find_checkpoints(self.folder))

    def due_after_epoch(self, epoch: int) -> bool:
        """Return whether to save after the `epoch`-th epoch, counted from 1."""
        return self.every_epochs is not None and epoch % self.every_epochs == 0

    def due_by_time(self) -> bool:
        """Return whether to save now because the last time is long ago."""
        return self.every_minutes is not None and monotonic() - self.saved_at >= 60 * self.every_minutes

    def save(self, content: dict[str, Any]) -> None:
        """Write checkpoint.pt; raise `UserError`, the earlier files intact, if that can't be done."""
        names = [self.folder / checkpoint_name(number) for number in range(self.keep)]

        def shift() -> None:
            for newer, older in reversed([*pairwise(names)]):
                if newer.exists():
                    newer.replace(older)

        data, is_first = sealed(content), not names[0].exists()
        with self.explained(names[0]):
            write_atomically(names[0], lambda file: file.write(data), before_rename=shift)
            for path in find_checkpoints(self.folder)[self.keep :]:
                path.unlink()
        self.saved_at = monotonic()
        if is_first:
            size = f"{data.nbytes / 1e6:,.0f} MB" if data.nbytes > 1e6 else f"{data.nbytes / 1e3:,.0f} kB"
            log.info(f"A checkpoint takes {size}; the last {self.keep} are kept")

    def save_best(self, content: dict[str, Any]) -> None:
        """Write best.pt; raise `UserError`, the earlier one intact, if that can't be done."""
        data = sealed(content)
        with self.explained(self.folder / BEST):
            write_atomically(self.folder / BEST, lambda file: file.write(data))

    @contextmanager
    def explained(self, path: Path) -> Iterator[None]:
        """Turn the system's refusal to write the file into a `UserError` that says how to go on."""
        try:
            yield
        except OSError as error:
            way_on = "No checkpoint was written before."
            if find_checkpoints(self.folder):
                way_on = f"The checkpoints before it are intact. When that is mended: {self.way_on}"
            raise UserError(f"{path} can't be written: {error.strerror or error}. {way_on}") from error


def checkpoint_name(number: int) -> str:
    """Return the name of the file that is `number` saves older than the newest."""
    return f"checkpoint-{number}.pt" if number else "checkpoint.pt"


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the folder's checkpoints, the newest first."""
    older = [path for path in folder.glob("checkpoint-*.pt") if path.stem.partition("-")[2].isdigit()]
    older.sort(key=lambda path: int(path.stem.partition("-")[2]))
    return [path for path in (folder / checkpoint_name(0), *older) if path.is_file()]


def read_newest(paths: list[Path]) -> dict[str, Any] | None:
    """Return the content of the first file that is intact, or None; those before it are renamed NAME.damaged."""
    for path in paths:
        try:
            return read_checkpoint(path, must_be_sealed=True)
        except DamagedError as error:
            path.rename(path.with_name(f"{path.name}.damaged"))
            log.warning(f"{error} It is now called {path.name}.damaged.")
    return None


def load_state(model: nn.Module, state: dict[str, Any], origin: str) -> None:
    """Load a state_dict that comes from `origin`.

    Raises `UserError` naming the first few keys that are missing, unexpected or of another shape; the model's weights
    are then undefined.
    """
    problems = []
    try:
        result = model.load_state_dict(state, strict=False)
        problems += [f"it lacks {_some(result.missing_keys)}"] if result.missing_keys else []
        problems += [f"it has {_some(result.unexpected_keys)} too many"] if result.unexpected_keys else []
    except RuntimeError:
        own = model.state_dict()
        problems.append("its shapes differ: " + _some([
            f"{key} is {_shape(value)} instead of {_shape(own[key])}"
            for key, value in state.items() if key in own and _shape(value) != _shape(own[key])
        ]))  # fmt: skip
    if problems:
        raise UserError(
            f"{origin} does not fit the {type(model).__name__}: {'; '.join(problems)}.\n"
            "It is probably a checkpoint of another model or of another number of classes: check model=…"
        )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more

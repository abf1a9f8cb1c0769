"""Checkpoints that tell whether they are intact.

A checkpoint is what `torch.save` writes, a zip archive, with the SHA-256 of all that precedes it as the archive's
comment: `torch.load(…, weights_only=True)` and `unzip` read it as it is, and no byte can change unnoticed.
"""

import hashlib
import io
import logging
import os
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import nn

from cifar.errors import UserError
from cifar.paths import why_no_file
from cifar.run_folder import SEAL_BYTES, SEAL_PREFIX, write_atomically

log = logging.getLogger(__name__)

NUM_NAMED = 3  # keys that an error message names before it says how many more there are


class DamagedError(UserError):
    """The file is cut or altered."""


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
        self.saved_at = monotonic()

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
        try:
            write_atomically(names[0], lambda file: file.write(data), before_rename=shift)
            for path in find_checkpoints(self.folder)[self.keep :]:
                path.unlink()
        except OSError as error:
            way_on = "No checkpoint was written before."
            if find_checkpoints(self.folder):
                way_on = f"The checkpoints before it are intact. When that is mended: {self.way_on}"
            raise UserError(f"{names[0]} can't be written: {error.strerror or error}. {way_on}") from error
        self.saved_at = monotonic()
        if is_first:
            size = f"{data.nbytes / 1e6:,.0f} MB" if data.nbytes > 1e6 else f"{data.nbytes / 1e3:,.0f} kB"
            log.info(f"A checkpoint takes {size}; the last {self.keep} are kept")


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


def sealed(content: dict[str, Any]) -> memoryview:
    """Return the file for `content`, which `torch.load(…, weights_only=True)` must be able to read."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(-2, os.SEEK_END)  # a zip archive ends with the length of its comment
    buffer.write(SEAL_BYTES.to_bytes(2, "little"))
    buffer.write(SEAL_PREFIX + hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    return buffer.getbuffer()


def check_seal(path: Path, must_be_sealed: bool) -> None:
    """Raise `DamagedError` if the file's bytes are not those that were sealed."""
    digest, remaining = hashlib.sha256(), max(0, path.stat().st_size - SEAL_BYTES)
    with path.open("rb") as file:
        while remaining and (chunk := file.read(min(1 << 20, remaining))):
            digest.update(chunk)
            remaining -= len(chunk)
        seal = file.read()
    if seal != SEAL_PREFIX + digest.hexdigest().encode() and (must_be_sealed or seal.startswith(SEAL_PREFIX)):
        raise DamagedError(f"{path} is cut or damaged: its checksum is wrong.")


def read_checkpoint(path: Path, must_be_sealed: bool = False) -> dict[str, Any]:
    """Return the dict in the file, its tensors on the CPU.

    Raises `UserError` if there is no such file, if it needs code or if it holds something else, and `DamagedError` if
    it is damaged. A file without a checksum counts as damaged if it `must_be_sealed`.
    """
    if not path.is_file():
        raise UserError(f"{str(path)!r}: {why_no_file(str(path))}.")
    check_seal(path, must_be_sealed)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{str(path)!r} is refused: it is not a checkpoint or holds more than tensors and plain values, "
            "and such a file could run code. Save it again as torch.save(model.state_dict(), PATH)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedError(f"{str(path)!r} can't be read, it may be cut or damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} holds a {type(content).__name__}, not a state_dict.")
    return content


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

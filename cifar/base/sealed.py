"""Files of tensors and plain values that tell whether they are intact.

Such a file is what `torch.save` writes, a zip archive, with the SHA-256 of all that precedes it as the archive's
comment: `torch.load(…, weights_only=True)` and `unzip` read it as it is, and no byte can change unnoticed.
"""

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from cifar.base.errors import UserError
from cifar.base.paths import why_no_file
from cifar.base.run_folder import SEAL_BYTES, SEAL_PREFIX


class DamagedError(UserError):
    """The file is cut or altered."""


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

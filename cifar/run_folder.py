"""What a run leaves behind beside its checkpoint: atomically written files and facts about the software."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from cifar.errors import UserError


def refuse_used_folder(folder: Path) -> None:
    """Raise `UserError` if the folder holds a run, which another one would overwrite."""
    if any((folder / name).exists() for name in ("metrics.jsonl", "checkpoint.pt", "summary.json")):
        raise UserError(
            f"{folder} already holds a run. Start the new one a second later, or with another hydra.run.dir."
        )


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it.

    Whatever happens, `path` is afterwards either the old file or the whole new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` atomically as indented JSON."""
    write_atomically(path, lambda file: file.write(to_json(content, indent=2).encode() + b"\n"))


def to_json(content: dict[str, Any], indent: int | None = None) -> str:
    """Return strict JSON: a number that is not finite becomes null, which every reader understands."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in content.items()
    }
    return json.dumps(finite, indent=indent, allow_nan=False)


def git_commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" if tracked files differ from it; None outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a result."""
    names = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "wandb")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}

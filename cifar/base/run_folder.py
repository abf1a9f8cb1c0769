"""A run's folder: atomically written files, its summary, facts about the software."""

import errno
import json
import math
import os
import platform
import secrets
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from cifar.base.errors import UserError
from cifar.base.locks import LOCK, OWNER

SEAL_PREFIX = b"sha256:"  # how the last bytes of a checkpoint begin
SEAL_BYTES = len(SEAL_PREFIX) + 64


def holds_run(folder: Path) -> bool:
    """Return whether a run has left something in the folder, more than the note that it could not begin."""
    has_state = any(folder.glob("checkpoint*.pt*")) or read_summary(folder).get("status") in ("completed", "diverged")
    return has_state or ((folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size > 0)


def refuse_used_folder(folder: Path, way_on: str) -> None:
    """Raise `UserError` if the folder holds a run, which another one would overwrite; `way_on` continues it."""
    if holds_run(folder):
        raise UserError(f"{folder} already holds a run. Continue it with {way_on}, or take another hydra.run.dir.")


def put_aside(folder: Path) -> Path:
    """Move everything of the run in the folder into a new subfolder of it, and return that."""
    number = 1
    while (aside := folder / f"replaced-{number}").exists():
        number += 1
    aside.mkdir()
    for entry in [*folder.iterdir()]:
        if entry.name not in (LOCK, OWNER, "run.log") and not entry.name.startswith("replaced-"):
            entry.rename(aside / entry.name)
    return aside


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], before_rename: Callable[[], None] = lambda: None
) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it.

    Whatever happens, `path` is afterwards either the old file or the whole new one. `before_rename` is called when the
    new content is safe.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        before_rename()
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` atomically as indented JSON."""
    write_atomically(path, lambda file: file.write(to_json(content, indent=2).encode() + b"\n"))


def prepare_results(path: Path | None) -> None:
    """Make the folder for a file of results, and raise `UserError` before the work rather than after it if need be."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror or error}.") from error


def write_results(path: Path | None, results: list[dict[str, Any]]) -> None:
    """Write what was measured so far, if a file was named for it."""
    if path is not None:
        write_json(path, {"results": results})


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the folder's summary.json; empty if there is none that can be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def score(summary: dict[str, Any]) -> float:
    """Return the accuracy to choose by: on the validation images, or on the test images if there are none held out."""
    return float(summary.get("val_accuracy", summary["test_accuracy"]))


def to_json(content: dict[str, Any], indent: int | None = None) -> str:
    """Return strict JSON: a number that is not finite becomes null, which every reader understands."""
    return json.dumps(finite(content), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """Return the value with None for every number in it that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def git_commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" if tracked files differ from it; None outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a result, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "wandb"):
        with suppress(PackageNotFoundError):  # wandb, where a run has tracker=none
            versions[name] = version(name)
    return versions

"""Paths as a user types them: with `~`, and relative to the folder in which the command was typed."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from cifar.base.errors import UserError

PACKAGE = Path(__file__).resolve().parent.parent
# The shipped configuration: in an installed package within it, in a checkout beside it.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if (path / "config.yaml").is_file())


def typed_in() -> Path:
    """Return the folder in which the command was typed, also where hydra.job.chdir has led out of it."""
    return Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()


def absolute(path: str) -> Path:
    """Return the absolute path, without `~` and `..`; raise `UserError` if nobody's home is meant."""
    try:
        expanded = Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no home folder that {Path(path).parts[0]} could stand for.") from None
    return Path(os.path.abspath(typed_in() / expanded))


def shown(path: Path) -> str:
    """Return the path as one would type it where the command was typed."""
    return os.path.relpath(path, typed_in())


def python() -> str:
    """Return how one calls this Python where the command was typed: by its path if the environment is not activated."""
    found = shutil.which("python")
    if not sys.executable or (found and Path(found).parent == Path(sys.executable).parent):
        return "python"
    path = Path(sys.executable)
    return shlex.quote(shown(path) if path.is_relative_to(typed_in()) else str(path))


def why_no_file(given: str) -> str:
    """Return in words why there is no file at the path: a link in it may lead nowhere, a variable be written out."""
    try:
        path = absolute(given)
    except UserError:
        return "there is no such file"
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            return f"{part} is a link to {os.readlink(part)}, which does not exist"
    if "$" in given and Path(os.path.expandvars(given)).exists():
        return "there is no such file, because quotes keep the shell from replacing the $"
    if path.is_dir():
        inside = path / "checkpoint.pt"
        return "it is a folder" + (f": give its file {shown(inside)}" if inside.is_file() else "")
    return "there is no such file"


def has_home() -> bool:
    """Return whether the user has a home folder in which something can be kept."""
    home = os.path.expanduser("~")
    return os.path.isdir(home) and os.access(home, os.W_OK)

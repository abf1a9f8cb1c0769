"""The command that runs, as it must be typed to have the same configuration again, and commands that are printed."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from cifar.trust import targets_in_words

CONF = Path(__file__).resolve().parent.parent / "conf"


def config_flags() -> list[str]:
    """Return what the running Hydra command was told about where its configuration is, as absolute paths.

    An application with a configuration of its own is described by the --config-path that run.py would take.
    """
    if not HydraConfig.initialized():
        return []
    hydra, flags = HydraConfig.get(), []
    for source in hydra.runtime.config_sources:
        path = f"pkg://{source.path}" if source.schema == "pkg" else source.path
        if source.provider == "main" and (source.schema == "pkg" or Path(source.path).resolve() != CONF):
            flags += ["--config-path", path]
        elif source.provider == "command-line":
            flags += ["--config-dir", path]
    if hydra.job.config_name not in (None, "config"):
        flags += ["--config-name", hydra.job.config_name]
    return flags + [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]


def named_code(words: Iterable[str]) -> list[str]:
    """Return the words among a command's overrides that name code to call, the last one for each key."""
    last = {word.partition("=")[0].lstrip("+"): word for word in words if [*targets_in_words([word])]}
    return [*last.values()]


def run_command(words: Iterable[str], flags: Sequence[str] = ()) -> str:
    """Return a command of run.py's for a shell."""
    return shlex.join(["python", "run.py", *flags, *words])


def resume_command(path: Path) -> str:
    """Return the command that goes on with the run in a folder, or from a checkpoint, for a shell."""
    task = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return run_command([f"resume={path_value(os.path.relpath(path))}", *named_code(task)], config_flags())


def path_value(path: str) -> str:
    """Return the path as it can stand behind resume=, quoted for Hydra only where that reads it otherwise."""
    return path if re.fullmatch(r"[\w/.-]*[a-zA-Z/][\w/.-]*", path) else quote(path)


def quote(text: str) -> str:
    """Return the text as a value for Hydra's command line, whatever characters it has."""
    text = re.sub(r"(\\+)(?='|$)", r"\1\1", text)  # only there does a backslash need another one
    return "'" + text.replace("'", "\\'").replace("${", "\\${") + "'"


def value_text(value: Any) -> str:
    """Return a plain value as Hydra's command line reads it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(value_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{quote(str(key))}:{value_text(item)}" for key, item in value.items()) + "}"
    return quote(value) if isinstance(value, str) else repr(value)

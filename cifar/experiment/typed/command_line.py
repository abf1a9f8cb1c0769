"""The command that runs, as it must be typed to have the same configuration again, and commands that are printed."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cifar.base.paths import CONF, shown
from cifar.experiment.stored.trust import targets_in_words


def words_of(hydra: Any, kind: str = "task") -> list[str]:
    """Return the overrides in Hydra's own node as they were typed: what is in them is resolved where it stands."""
    words = OmegaConf.to_container(hydra.overrides[kind], resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


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
    return flags + [word for word in words_of(hydra, "hydra") if word.startswith("hydra.searchpath=")]


def named_code(words: Iterable[str]) -> list[str]:
    """Return the words among a command's overrides that name code to call, the last one for each key."""
    last = {key_of(word): word for word in words if [*targets_in_words([word])]}
    return [*last.values()]


def named_choices(choices: Mapping[str, str], words: Iterable[str]) -> dict[str, str]:
    """Return the groups' choices; a group whose `_target_` is among the words has the name of what that calls."""
    named = dict(choices)
    for key, target in targets_in_words(words):
        if (group := key.partition(".")[0]) in named and isinstance(target, str):
            named[group] = target.rpartition(".")[2]
    return named


def continued(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return how a command would describe a run that goes on, as `stored`, with what is `given` beside resume=PATH."""
    new = {key_of(word): word for word in given["overrides"]}
    kept = [
        word
        for word in map(str, stored.get("overrides") or [])
        if not any(key_of(word) == key or key_of(word).startswith(f"{key}.") for key in new)
    ]
    choices = {group: choice for group, choice in given["choices"].items() if group in new}
    return {
        **stored,
        "overrides": [*kept, *new.values()],
        "flags": given["flags"] or stored.get("flags") or [],
        "choices": {**(stored.get("choices") or {}), **choices},
    }


def key_of(override: str) -> str:
    """Return the key of an override such as "lr=0.1" or "+hydra/launcher=joblib"."""
    return override.lstrip("+~").partition("=")[0]


def run_command(words: Iterable[str], flags: Sequence[str] = ()) -> str:
    """Return a command that runs, for a shell."""
    return shlex.join(["cifar", "run", *flags, *words])


def resume_command(path: Path) -> str:
    """Return the command that goes on with the run in a folder, or from a checkpoint, for a shell."""
    task = words_of(HydraConfig.get()) if HydraConfig.initialized() else []
    return shlex.join(["cifar", "resume", shown(path), *config_flags(), *named_code(task)])


def typed(key: str, path: str) -> str:
    """Return the word that gives the key this path, quoted for Hydra and for the shell where they need it."""
    return shlex.join([f"{key}={path_value(path)}"])


def path_value(path: str) -> str:
    """Return the path as it can stand behind resume=, quoted for Hydra only where that reads it otherwise."""
    try:
        (override,) = OverridesParser.create().parse_overrides([f"resume={path}"])
    except HydraException:
        return quote(path)
    return path if "$" not in path and override.value() == path else quote(path)


def quote(text: str) -> str:
    """Return the text as a value for Hydra's command line, whatever characters it has."""
    text = re.sub(r"(\\+)(?='|$)", r"\1\1", text)  # only there does a backslash need another one
    return "'" + text.replace("'", "\\'").replace("${", "\\${") + "'"

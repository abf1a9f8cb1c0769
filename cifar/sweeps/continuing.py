"""How a sweep goes on: what it was begun with, the command that continues it, and what of it a stranger may not say.

A sweep's folder may come from anybody. What it says is taken only where it names no code, no setting of Hydra's that
may run some and no file of configuration beside the user's own; the rest must be typed again (docs/trust.md).
"""

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from cifar.base.errors import UserError
from cifar.base.paths import CONF
from cifar.experiment.config import RULES
from cifar.experiment.stored.trust import (
    STUDIES,
    STUDY_COPY,
    TARGET,
    leads_out,
    own_targets,
    refuse_resolvers,
    targets_in_words,
)
from cifar.experiment.typed.command_line import config_flags, path_value, quote, run_command, typed, words_of
from cifar.experiment.typed.search_path import folders_of
from cifar.sweeps.plan import Begun, Plan, key_of, read_plan

MAY_CHANGE_IN_SWEEP = ("epochs", "log_every", "tracker", "checkpoint", "data.root", "hydra")
OF_EVERY_SWEEP = ("hydra.mode", "hydra.sweep.dir", "hydra.sweeper.same_base")
LAUNCHER = "hydra/launcher"
FLAGS = ("--config-path", "--config-dir", "--config-name")


def begun_by(config: DictConfig, words: list[str], base: dict[str, Any]) -> Begun:
    """Return what the sweep that runs was begun with; `words` are the command's, `base` is what they make of it."""
    flags = [flag for flag in config_flags() if not flag.startswith("hydra.searchpath=")]
    hydra = [word for word in words_of(config.hydra, "hydra") if key_of(word) not in OF_EVERY_SWEEP]
    return Begun(words, hydra, flags, os.getcwd(), base)


def typed_again(begun: Begun, folder: Path) -> str:
    """Return the command that begins the sweep once more in its folder, where what is done is found."""
    words = [*begun.task, *begun.hydra, "resume=auto", f"hydra.sweep.dir={path_value(os.path.relpath(folder))}"]
    return run_command(["-m", *words], begun.flags)


def again(folder: Path) -> str:
    """Return the command that continues the sweep in the folder, with all that must be typed again."""
    plan = read_plan(folder)
    begun = plan.begun if plan else None
    repeated = [*begun.flags, *untrusted(begun, begun.flags, [])] if begun else []
    return shlex.join(["cifar", "resume", os.path.relpath(folder), *repeated])


def untrusted(begun: Begun, flags: list[str], extra: list[str]) -> dict[str, str]:
    """Return the words of the sweep that a stranger may not say, each with the reason.

    `flags` and `extra` words are what the user has typed.
    """
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    folders = [given.get("--config-path", str(CONF)), *(given[key] for key in given if key == "--config-dir")]
    allowed = own_targets([*map(Path, folders), *folders_of(extra)], words=extra)
    words = [*begun.task, *begun.hydra]
    last = {key_of(word): word for word in words}
    counting = [word for word in words if last[key_of(word)] == word or not key_of(word).endswith(TARGET)]
    if any(key_of(word) == LAUNCHER and word not in words for word in extra):  # another takes nothing of the earlier's
        counting = [word for word in counting if not key_of(word).startswith("hydra.launcher.")]
    return {word: reason for word in counting if word not in extra and (reason := objection(word, allowed))}


def objection(word: str, allowed: Iterable[str]) -> str | None:
    """Return why the word may not be taken from a sweep's folder; None: it may."""
    key, value = key_of(word), word.partition("=")[2]
    if key.startswith("hydra.sweeper.params."):
        return objection(f"{key.removeprefix('hydra.sweeper.params.')}={value}", allowed)
    if re.match("hydra($|[./@])", key) and not is_harmless(key, value):
        return "is a setting of Hydra's that may run code"
    if any(target not in allowed for _, target in targets_in_words([word])):
        return "names code that your own configuration does not name"
    if leads_out(word):
        return "leads out of your own configuration"
    try:
        refuse_resolvers(word, word)
    except UserError:
        return "asks for more than the value of another key"
    return None


def is_harmless(key: str, value: str) -> bool:
    """Return whether it is the launcher's name, a number for the launcher or the sweeper, or one of SLURM's names."""
    if key == LAUNCHER:
        return re.fullmatch(r"\w+", value) is not None
    if re.fullmatch(r"hydra\.launcher\.(partition|account|qos|constraint|name)", key):
        return re.fullmatch(r"\w[\w.-]*", value) is not None
    is_number = re.fullmatch(r"-?\d+(\.\d+)?|null|true|false", value, re.IGNORECASE) is not None
    return is_number and re.fullmatch(r"hydra\.(launcher\.\w+|sweeper\.max_batch_size)", key) is not None


def read_begun(folder: Path) -> Plan:
    """Return the plan of the sweep in the folder; raise `UserError` if there is none that can be continued."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    plan, shown = read_plan(folder), shlex.quote(os.path.relpath(folder))
    if plan is not None and plan.begun is not None:
        return plan
    if any((folder / name).exists() for name in STUDIES):
        of_database = " storage=postgresql://…" if (folder / STUDY_COPY).exists() else ""
        again = f"cifar tune folder={shlex.quote(str(folder))}{of_database}"
        raise UserError(f"{folder} holds a search. To continue it: {again}")
    if (folder / "multirun.yaml").exists():
        raise UserError(
            f"{folder} has no intact sweep.json, so its jobs are not known. Type the sweep's command again, with "
            f"resume=auto {typed('hydra.sweep.dir', os.path.relpath(folder))}; what is done is found."
        )
    raise UserError(f"{folder} is not a sweep's folder: it has no sweep.json. One run: cifar resume {shown}")


def refuse_untrusted(folder: Path, extra: list[str], flags: list[str]) -> None:
    """Raise `UserError` for the first thing that continuing the sweep needs and that must be typed again."""
    begun = read_begun(folder).begun
    assert begun is not None
    if [*flags] != begun.flags:
        how = f"with {shlex.join(begun.flags)}" if begun.flags else "without these flags"
        raise UserError(f"{folder} was begun {how}. If you trust that, continue it with: {again(folder)}")
    for word, reason in untrusted(begun, flags, extra).items():
        raise UserError(
            f"{word} in {folder} {reason}, so it is not taken from there. Nothing was called. If you trust it, "
            f"continue with: {again(folder)}"
        )


def sweep_arguments(folder: Path, extra: list[str]) -> tuple[list[str], Path]:
    """Return run.py's arguments that continue the sweep in `folder`, and the working directory it was started in."""
    plan = read_begun(folder)
    begun = plan.begun
    assert begun is not None
    stored = [*begun.task, *begun.hydra]
    parser = OverridesParser.create()
    changes = [word for word in extra if word not in stored]
    for override in parser.parse_overrides(changes):
        key, line = override.key_or_group, override.input_line
        is_possible = re.match(f"({'|'.join(MAY_CHANGE_IN_SWEEP)})($|[./])", key)
        if override.is_sweep_override() or key in plan.swept or not is_possible:
            allowed = ", ".join(MAY_CHANGE_IN_SWEEP)
            raise UserError(f"{line} would be another sweep, so start a new one. Here there may be {allowed}.")
        if key in RULES and not RULES[key][1](override.value()):
            raise UserError(f"{line} is not possible: {key} takes {RULES[key][0]}.")
    replaced = {key_of(word) for word in changes}
    kept = [word for word in stored if key_of(word) not in replaced]
    if LAUNCHER in replaced:  # it may not take what the earlier one took
        kept = [word for word in kept if not key_of(word).startswith("hydra.launcher.")]
    own = ["hydra.sweeper.same_base=true", "resume=auto", f"hydra.sweep.dir={quote(str(folder))}"]
    return [*begun.flags, "-m", *kept, *changes, *own], Path(begun.cwd)


def is_auto(config: DictConfig) -> bool:
    """Return whether the command asks to go on with what there is."""
    return bool(OmegaConf.select(config, "resume") == "auto")


def go_to(cwd: str, folder: Path, noun: str) -> None:
    """Go to where the sweep or search was begun, to which the paths among its words are relative, and say so.

    What a folder says of that is a stranger's word: it leads up from the folder itself, never elsewhere.
    """
    if cwd == os.getcwd():
        return
    if not Path(cwd).is_dir():
        print(f"The {noun} was begun in {cwd}, which is not here: relative paths among its words are meant from here.")
        return
    if not folder.resolve().is_relative_to(Path(cwd).resolve()) or not Path(cwd).is_absolute():
        raise UserError(
            f"The {noun} was begun in {cwd}, and the paths among its words are relative to that. "
            f"To continue it, go there: cd {shlex.quote(cwd)}"
        )
    print(f"The {noun} was begun in {cwd}: relative paths among its words are meant from there.")
    os.chdir(cwd)

"""What an error means to the user: one message that says what is allowed, or nothing if it is a fault of ours.

Errors of libraries count as the user's where they come from the command line, the configuration's files, the file
system or what the machine has.
"""

import re
import sys
from traceback import walk_tb

import yaml
from hydra.core.default_element import GroupDefault
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from cifar.base.errors import UserError
from cifar.commands.messages.config_files import (
    chain,
    circle,
    file_at,
    find_local,
    flaw,
    group_options,
    shown,
    with_line,
    word_at,
    yaml_message,
)
from cifar.experiment.config import RULES, unknown_key
from cifar.experiment.typed.words import explain_word
from cifar.experiment.values.resolvers import RESOLVING

COMPOSES = ("hydra", "omegaconf", "yaml", "antlr4")  # what reads the command line and the configuration's files
COMPILES = ("torch._dynamo", "torch._inductor", "triton")
NO_MEMORY = re.compile(r"out of memory|can't allocate|not enough memory|Cannot allocate memory", re.IGNORECASE)
ALONE = "_dummy_"  # the key that Hydra gives to a group's choice while it is resolved by itself
TOO_LARGE = re.compile("Overflow when unpacking")  # what torch says
LOST_WORKERS = ("TerminatedWorkerError", "BrokenProcessPool")
# choices that Hydra knows only where a package is installed: that, and the extra which brings it
INSTALLED = {"hydra/launcher=joblib": ("hydra-joblib-launcher", "parallel")}


def explain(error: BaseException) -> str | None:
    """Return one message for what the user can mend; None for a fault of ours."""
    if isinstance(error, UserError):
        return str(error)
    for explanation in (of_word, of_choice, of_file, of_value, of_hydra, of_machine, of_composition):
        if (message := explanation(error)) is not None:
            return message
    return None


def of_word(error: BaseException) -> str | None:
    """Explain a word that Hydra's grammar can't read."""
    if isinstance(error, OverrideParseException):
        return explain_word(error.override, str(error))
    return None


def of_choice(error: BaseException) -> str | None:
    """Explain a choice that a group does not have."""
    if isinstance(error, MissingConfigException):
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if options := error.options or (group and group_options(error, group)):  # Hydra has none for one of a list
            if f"{group}={choice}" in INSTALLED:
                package, extra = INSTALLED[f"{group}={choice}"]
                install = f"pip install 'cifar-framework[{extra}]'"
                return f"{group}={choice} needs {package}, which is not installed: {install}"
            return f"{group}={choice} is not possible: there is {', '.join(options)}."
        return f"{first_line(error)}."
    if not isinstance(error, ValueError) or not came_through(error, "hydra._internal.defaults_list"):
        return None
    override = word_at(error)
    if override is None or not str(error).startswith("Config group override"):
        return None
    options = group_options(error, override.key_or_group)
    there_is = f"there is {', '.join(options)}" if options else "it takes the name of a choice"
    return f"{override.input_line} is not possible: {there_is}."


def of_file(error: BaseException) -> str | None:
    """Explain a configuration file that can't be read, or names itself."""
    for link in chain(error):
        if isinstance(link, yaml.YAMLError):
            return yaml_message(link, file_at(error))
        if isinstance(link, RecursionError) and (names := circle(link)):
            first = f"The defaults of {names[0]!r} name "
            if len(names) == 1:
                return f"{first}that file itself. For the place of its own values write _self_, not its name."
            return f"{first}{', which names '.join(map(repr, [*names[1:], names[0]]))}: that has no end."
    path = file_at(error)
    if path is None or any(isinstance(link, GrammarParseError) for link in chain(error)):
        return None
    if (message := flaw(path)) is not None:
        return message
    if isinstance(error, OSError) or not isinstance(error, HydraException):
        return f"{shown(path)}: {first_line(error)}"
    return None


def of_value(error: BaseException) -> str | None:
    """Explain a value that does not fit the schema, or an expression without a value, and name its file."""
    causes = [link for link in chain(error) if isinstance(link, OmegaConfBaseException)]
    if not causes:
        return None
    message, path = explain_value(causes[0]), file_at(error)
    if str(causes[0].full_key) == ALONE and (choice := find_local(error, "self", GroupDefault)) is not None:
        return f"{choice.group}={choice.value} is not possible: {first_line(causes[0].msg)}."
    return message if path is None else f"{with_line(path, str(causes[0].full_key))}: {message}"


def explain_value(cause: OmegaConfBaseException) -> str:
    """Explain what OmegaConf objects to."""
    key, parent = str(cause.full_key), cause.parent_node
    reason = first_line(cause.msg if cause.msg else cause)
    if isinstance(cause, GrammarParseError):
        return f"{key}: {reason}. Such a ${{…}} can't be read; it may need quotes."
    if isinstance(cause, InterpolationResolutionError):
        return f"{reason.removeprefix(RESOLVING)}." if reason.startswith(RESOLVING) else f"{key}: {reason}."
    if isinstance(cause, MissingMandatoryValue) or reason.endswith("does not support deletion"):
        return f"{key or reason.rpartition(' ')[2]} can't be left out."
    if isinstance(parent, DictConfig) and cause.key not in parent:
        return str(unknown_key(key, [str(name) for name in parent if name != "hydra"]))
    allowed = f" It takes {RULES[key][0]}." if key in RULES else ""
    return f"{key}: {reason}.{allowed}" if key not in ("", "None") else f"{reason}."


def of_hydra(error: BaseException) -> str | None:
    """Give Hydra's own message."""
    return str(error).strip() or type(error).__name__ if isinstance(error, HydraException) else None


def of_machine(error: BaseException) -> str | None:
    """Explain what the file system, the memory or the compiler can't do."""
    for link in chain(error):
        names = {f"{kind.__module__}.{kind.__name__}" for kind in type(link).__mro__}
        if isinstance(link, OSError):
            return of_file_system(link)
        if any(name.startswith(COMPILES) for name in names):
            return (
                f"device.compile=true is not possible here: {first_line(link)}. "
                "Use device.compile=false, or install what is missing, such as a C++ compiler."
            )
        if isinstance(link, OverflowError) or TOO_LARGE.match(str(link)):
            return f"A number in the configuration is too large: {first_line(link)}."
        if isinstance(link, MemoryError) or (isinstance(link, RuntimeError) and NO_MEMORY.search(str(link))):
            return f"The memory is not enough: {first_line(link)}. Try a smaller model, batch or set of images."
        if any(name.endswith(LOST_WORKERS) for name in names):
            return "A process of the sweep was killed from outside, perhaps because the memory was not enough."
    return None


def of_file_system(error: OSError) -> str:
    """Return which path could not be used and why."""
    if error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error)


def of_composition(error: BaseException) -> str | None:
    """Explain whatever else was raised by a library that reads the command line or the configuration."""
    if innermost(error).partition(".")[0] not in COMPOSES:
        return None
    override = word_at(error)
    where = f"{override.input_line} is not possible" if override else "The configuration can't be composed"
    reasons = [first_line(link) for link in (error, error.__cause__) if str(link or "")] or ["Hydra does not say why"]
    return f"{where}: {': '.join(reasons)}."


def innermost(error: BaseException) -> str:
    """Return the name of the module that raised the error, leaving out Python's own."""
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]
    return next((name for name in reversed(names) if name.partition(".")[0] not in sys.stdlib_module_names), "")


def came_through(error: BaseException, module: str) -> bool:
    """Return whether the error was raised in the module or below it."""
    return any(frame.f_globals.get("__name__") == module for frame, _ in walk_tb(error.__traceback__))


def first_line(text: object) -> str:
    """Return the first line that is not empty, without its full stop."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(text).__name__

"""The folders of configuration files beside the shipped ones: --config-dir for a shell, a word of Hydra's inside."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from cifar.base.errors import UserError
from cifar.base.paths import absolute
from cifar.experiment.typed.command_line import quote

KEY, FLAG = "hydra.searchpath", "--config-dir"
FILE = "file://"


def as_word(folders: Iterable[str]) -> str:
    """Return the word that puts folders, or what Hydra names with a scheme, on the search path."""
    entries = (entry if "://" in entry else f"{FILE}{entry}" for entry in folders)
    quoted = (quote(entry).replace("\\${", "${") for entry in entries)  # Hydra takes the path as it stands
    return f"{KEY}=[{','.join(quoted)}]"


def is_search_path(word: str) -> bool:
    """Return whether a word of a command is one for the search path."""
    return word.lstrip("+").partition("=")[0] == KEY


def entries_of(words: Iterable[str]) -> list[str]:
    """Return what the words put on the search path; folders without their scheme."""
    found: list[str] = []
    for override in OverridesParser.create().parse_overrides([word for word in words if is_search_path(word)]):
        value = override.value()
        if not isinstance(value, list):
            raise UserError(f"{override.input_line} is not possible: it takes a list, such as {as_word(['conf'])}.")
        found += [str(entry).removeprefix(FILE) for entry in value]
    return found


def folders_of(words: Iterable[str]) -> list[Path]:
    """Return the folders that the words put on the search path."""
    return [Path(entry) for entry in entries_of(words) if "://" not in entry]


def without_flags(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments with one word for --config-dir and for what they say of the search path otherwise.

    Its paths are absolute. Raises `UserError` for a folder that is not there.
    """
    found: list[str] = []
    others: list[str] = []
    waiting = [*arguments]
    while waiting:
        word = waiting.pop(0)
        flag, is_assignment, value = word.partition("=")
        if flag in (FLAG, "-cd"):
            if not is_assignment and not waiting:
                raise UserError(f"{FLAG} takes a folder: {FLAG} DIR")
            found.append(value if is_assignment else waiting.pop(0))
        elif is_search_path(word):
            found += entries_of([word])
        else:
            others.append(word)
    entries = [entry if "://" in entry else str(absolute(entry)) for entry in found]
    for entry in entries:
        if "://" not in entry and not Path(entry).is_dir():
            raise UserError(f"{FLAG} {entry}: there is no such folder.")
    return [as_word(entries), *others] if entries else others


def as_flags(words: Iterable[str]) -> list[str]:
    """Return what to type for the search path among the words, as `without_flags` made them."""
    entries = entries_of(words)
    if len(entries) == 1 and "://" not in entries[0]:
        return [FLAG, entries[0]]
    return [as_word(entries)] if entries else []


def others_of(words: Iterable[str]) -> list[str]:
    """Return the words that are not for the search path."""
    return [word for word in words if not is_search_path(word)]

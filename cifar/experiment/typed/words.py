"""Words of a command line that Hydra's grammar can't read: which character, why, and what to type instead."""

import re
import shlex
from collections.abc import Sequence

from antlr4.error.Errors import LexerNoViableAltException
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cifar.experiment.config import Config
from cifar.experiment.typed.command_line import quote

NULL = re.compile(r"(?<![\w'\"/.-])null(?![\w'\"/.-])")
LISTS = ("test_on",)  # groups of the schema of which none may be chosen, or several
EXAMPLE = "lr=0.01, model=vgg16 or +data.source.num_train=80"


def choose_nothing(words: Sequence[str]) -> list[str]:
    """Return the words with GROUP=null, also among a sweep's choices, as the GROUP=[] in which Hydra 1.3 reads it.

    A word without dots whose key the schema does not know is one for a group that may be left open.
    """
    return [without_null(word) for word in words]


def without_null(word: str) -> str:
    """Return the word with an empty list for every null, if its key is such a group."""
    key, _, value = word.partition("=")
    may_be_open = key in LISTS or key not in Config.__dataclass_fields__
    is_open_group = re.fullmatch(r"[\w/@-]+", key) and may_be_open and key[0] != "-"
    return f"{key}={NULL.sub('[]', value)}" if is_open_group and value else word


def explain_word(word: str, reason: str) -> str:
    """Return what is wrong with the override `word`, and the form to type if quoting it is the cure.

    `reason` is what Hydra says itself.
    """
    key, is_assignment, value = word.partition("=")
    if not is_assignment:
        return f"{word!r} is not possible: a word is KEY=VALUE, such as {EXAMPLE}."
    if not readable(f"{key}=0"):
        return f"{word!r} is not possible: {key!r} can't be a key. A word is KEY=VALUE, such as {EXAMPLE}."
    what = f"{word} can't be read: {because(word, reason)}."
    typed = quoted_word(key, value)
    return f"{what} Type it quoted, for Hydra and for the shell: {typed}" if typed else what


def because(word: str, reason: str) -> str:
    """Return which part of the word the grammar stumbles over."""
    character = stumbling_block(word)
    if character is not None:
        return f"without quotes Hydra takes no {character!r} in a value"
    found = re.search(r"(mismatched|extraneous) input '(.+?)' expecting", reason)
    if found is not None and found[2] != "<EOF>":
        return f"Hydra takes {found[2]!r} for a sign of its own"
    if "<EOF>" in reason:
        return "it ends before a bracket or a quote is closed"
    lines = [line for line in reason.splitlines() if not line.startswith(("See https", "Error parsing"))]
    return " ".join(" ".join(lines).split()).rstrip(".") or "its value is not in Hydra's grammar"


def stumbling_block(word: str) -> str | None:
    """Return the first character that no unquoted value may have; None if it is not a matter of one."""
    try:
        OverridesParser.create().parse_rule(word, "override")
    except HydraException as error:
        if isinstance(error.__cause__, LexerNoViableAltException) and error.__cause__.startIndex < len(word):
            return word[error.__cause__.startIndex]
    except Exception:
        pass  # whatever the parser can't cope with; the reason is then its own text
    return None


def readable(word: str) -> bool:
    """Return whether the grammar reads the word."""
    try:
        OverridesParser.create().parse_rule(word, "override")
    except Exception:
        return False
    return True


def quoted_word(key: str, value: str) -> str | None:
    """Return the word for a shell with its value quoted for Hydra; None unless Hydra then reads that very value."""
    text = value.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]  # it was quoted, but not well
    if "\n" in text:
        return None
    word = f'{key}="{text}"' if not {*text} & {*"'\"\\"} else f"{key}={quote(text)}"
    try:
        override = OverridesParser.create().parse_overrides([word])[0]
    except HydraException:
        return None
    read = override.value()
    is_same = isinstance(read, str) and read.replace("\\${", "${") == text
    return shlex.quote(word) if is_same else None

"""What values of the configuration may be: checked where they enter a constructor, with one message for all.

A schedule, an augmentation, a model or an optimizer names the limits of its values and calls `refuse_impossible`.
"""

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cifar.base.errors import UserError


@dataclass(frozen=True)
class Limit:
    """What a value may be: in words, and as a question that takes any object."""

    words: str
    allows: Callable[[Any], bool]

    def or_null(self) -> "Limit":
        """Allow None too."""
        return Limit(f"{self.words}, or null", lambda value: value is None or self.allows(value))


def number(words: str, is_good: Callable[[float], bool]) -> Limit:
    """Allow the finite numbers that are good; true and false are no numbers."""

    def allows(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max and is_good(value)  # no comparison holds for NaN

    return Limit(words, allows)


def whole_number(low: int, high: int, what: str = "") -> Limit:
    """Allow the whole numbers from `low` to `high`; `what` follows the words, as in " of pixels"."""
    between = number("", lambda value: low <= value <= high)
    return Limit(
        f"a whole number{what} from {low} to {high:,}",
        lambda value: isinstance(value, int) and between.allows(value),
    )


def list_of(length: int, each: Limit, words: str) -> Limit:
    """Allow lists of this length."""

    def allows(value: Any) -> bool:
        return isinstance(value, list | tuple) and len(value) == length and all(map(each.allows, value))

    return Limit(words, allows)


FLAG = Limit("true or false", lambda value: isinstance(value, bool))
NUM_CLASSES = whole_number(1, 1_000_000, " of classes")


def refuse_impossible(where: str, values: Mapping[Any, Any], limits: Mapping[str, Limit]) -> None:
    """Raise `UserError` for the first of the values beyond its limit; those without one pass."""
    for name, value in values.items():
        if name in limits and not limits[name].allows(value):
            raise UserError(f"{where}.{name}={value!r} is not possible: it takes {limits[name].words}.")


def refuse_no_parts(where: str, parts: Any, *methods: str) -> None:
    """Raise `UserError` if these are not a list of parts, at least one, that have the methods."""
    if not isinstance(parts, list | tuple) or not parts:
        raise UserError(f"{where}={parts!r} is not possible: it takes a list with at least one part.")
    for number, part in enumerate(parts):
        if not all(callable(getattr(part, method, None)) for method in methods):
            raise UserError(
                f"{where}[{number}]={part!r} is not possible: it takes what has a _target_ with the methods "
                f"{' and '.join(methods)}."
            )


def refuse_unknown_keys(where: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UserError` for the first key that is none of the known ones."""
    there = [*known]
    for key in keys:
        if key not in there:
            guesses = difflib.get_close_matches(str(key), there, n=1)
            hint = f" Did you mean {guesses[0]!r}?" if guesses else ""
            raise UserError(f"There is no key {key!r} in {where}.{hint} It has: {', '.join(there)}.")

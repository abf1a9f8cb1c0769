"""The keys of a group compared with what the constructor that it names takes, before that is called."""

import inspect
from collections.abc import Iterable
from typing import Any

from hydra.utils import get_object

from cifar.base.errors import UserError
from cifar.experiment.config import unknown_key
from cifar.experiment.stored.formats import MOVED

TARGET, POSITIONAL = "_target_", "_args_"  # Hydra's
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def refuse_unfit(
    group: str, target: Any, names: Iterable[str], num_handed_over: int = 0, is_partial: bool = False
) -> None:
    """Raise `UserError` for the first key below `group` that the `target` does not take, or that it lacks.

    Its first `num_handed_over` parameters come from the program. What can't be looked up, or is not written in Python,
    is left to the call.
    """
    try:
        signature = inspect.signature(get_object(target))
    except Exception:  # Hydra says what is wrong with the target
        if isinstance(target, str) and target in MOVED:
            raise UserError(f"{group}._target_={target} has another name now: {MOVED[target]}.") from None
        return
    parameters = [*signature.parameters.values()][num_handed_over:]
    named = [parameter.name for parameter in parameters if parameter.kind in BY_NAME]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    given = [name for name in names if not name.startswith("_")]
    for name in given:
        if name not in named and not takes_any:
            raise unknown_key(f"{group}.{name}", named)
    for parameter in [] if is_partial else parameters:  # what is called later may get more then
        if parameter.name in named and parameter.default is parameter.empty and parameter.name not in given:
            raise UserError(f"{group}.{parameter.name} can't be left out.")


def refuse_unfit_inside(group: str, node: Any) -> None:
    """Do the same for all that has a `_target_` of its own in the dicts and lists of the group's `node`."""
    if not isinstance(node, dict | list):
        return
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        key = f"{group}.{name}"
        if isinstance(value, dict) and TARGET in value and POSITIONAL not in value:
            refuse_unfit(key, value[TARGET], map(str, value), is_partial=bool(value.get("_partial_")))
        refuse_unfit_inside(key, value)

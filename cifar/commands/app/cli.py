"""The command line around Hydra: run.py's command, from the words typed to Hydra and back.

Nothing here imports torch before the configuration is known to be good.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser

from cifar.base.errors import Passing
from cifar.commands.app import sweeper
from cifar.commands.app.ranks import is_rank, together
from cifar.commands.messages.exits import guard
from cifar.experiment.restore import place
from cifar.experiment.typed.words import choose_nothing


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with Hydra's flags, and the values of these, before the words: it takes no others between.

    A word is what may be an override: it has a = or begins with ~.
    """
    actions = {name: action for action in get_args_parser()._actions for name in action.option_strings}
    flags: list[str] = []
    words: list[str] = []
    waiting = [*arguments]
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("-") or argument == "--":
            words.append(argument)
            continue
        flags.append(argument)
        takes = actions[argument].nargs if argument in actions else 0
        is_word = bool(waiting) and ("=" in waiting[0] or waiting[0].startswith(("-", "~")))
        if waiting and (takes is None or (takes == "?" and not is_word)):
            flags.append(waiting.pop(0))
    return [*flags, *words]


def start(main: Callable[[], Any]) -> None:
    """Call Hydra's `main`, guarded, with our sweeper instead of Hydra's."""

    def command() -> None:
        sys.argv[1:] = choose_nothing(place(flags_first(sys.argv[1:])))
        if is_rank():
            together(lead, sys.argv[1:])
        else:
            lead()

    def lead() -> None:
        sweeper.register()
        error: Exception | None = None
        try:
            main()
        except Passing as passing:
            error = passing.error
        if error is not None:
            raise error  # here, where it keeps its cause

    guard(command)

"""The command line around Hydra: run.py's command, from the words typed to Hydra and back.

Nothing here imports torch before the configuration is known to be good.
"""

import sys
from collections.abc import Callable
from typing import Any

from cifar.base.errors import Passing
from cifar.commands.app import sweeper
from cifar.commands.messages.exits import guard
from cifar.experiment.restore import place
from cifar.experiment.typed.words import choose_nothing


def start(main: Callable[[], Any]) -> None:
    """Call Hydra's `main`, guarded, with our sweeper instead of Hydra's."""

    def command() -> None:
        sys.argv[1:] = choose_nothing(place(sys.argv[1:]))
        sweeper.register()
        error: Exception | None = None
        try:
            main()
        except Passing as passing:
            error = passing.error
        if error is not None:
            raise error  # here, where it keeps its cause

    guard(command)

"""Signs of life: how the machines that share a search know that a trial's process is still there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from threading import Event, Thread
from typing import TYPE_CHECKING

from cifar.sweeps.home import BEAT, Home, SharedHome

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from optuna import Trial
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

SIGNS_IN_GRACE = 4  # so that one or two may get lost


def alive(home: Home, trial: "Trial | FrozenTrial") -> "AbstractContextManager[None]":
    """Give signs of life for the trial until the end of the block, where other machines need them."""
    from optuna import Trial

    return giving_signs(home, trial) if isinstance(home, SharedHome) and isinstance(trial, Trial) else nullcontext()


@contextmanager
def giving_signs(home: SharedHome, trial: "Trial") -> Iterator[None]:
    """Change the trial's sign in a thread of its own. A home that is out of reach for a while ends nothing."""
    from optuna.exceptions import UpdateFinishedTrialError

    is_over = Event()

    def give() -> None:
        is_reached = True
        for number in count(1):
            if is_over.wait(home.grace / SIGNS_IN_GRACE):
                return
            try:
                trial.set_user_attr(BEAT, number)
                is_reached = True
            except UpdateFinishedTrialError:
                return  # it was given to another process, as the end of this one's run will say
            except Exception as error:
                if is_reached:
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    log.warning(f"{home.shown} is out of reach, and the run goes on: {reason}")
                is_reached = False

    thread = Thread(target=give, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()

"""A command that torchrun started several times for one run: the first process does what is seen, the others follow.

Nothing here imports torch in a command that is given once.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cifar.base import signals
from cifar.base.errors import UserError
from cifar.commands.messages.explain import explain

SWEEP_FLAGS = ("-m", "--multirun")


def is_rank() -> bool:
    """Return whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def together(command: Callable[[], None], arguments: Sequence[str]) -> None:
    """Call the command as rank 0; as another rank follow it."""
    from cifar.training.distributed import join, part

    ranks = join()
    if not ranks.leads:
        with signals.quiet():
            follow_silently()
        return
    if {*SWEEP_FLAGS} & {*arguments}:
        raise UserError(
            "A sweep is not possible under torchrun, whose processes make one run together. Without torchrun, "
            "hydra/launcher=joblib hydra.launcher.n_jobs=N works on N runs at a time, each on a GPU of its own."
        )
    with reasons_told():
        command()
    part()


def follow_silently() -> None:
    """Follow rank 0, and end as it does: it says what there is to say, also what went wrong here alone."""
    from cifar.experiment.followers import follow
    from cifar.training.distributed import GoneError, Ranks, part

    try:
        follow()
    except KeyboardInterrupt:
        sys.exit(signals.exit_code())
    except GoneError:
        sys.exit(signals.exit_code() if signals.has_come() else 1)
    except Exception as error:
        text = explain(error) or "".join(traceback.format_exception(error))
        Ranks.current().leave_saying(f"Process {Ranks.current().rank}: {text}")
        sys.exit(1)
    part()


@contextmanager
def reasons_told() -> Iterator[None]:
    """Raise what other ranks have said of their end instead of the error that they are gone."""
    from cifar.training.distributed import GoneError, Ranks

    try:
        yield
    except GoneError as error:
        with signals.deferred(lambda: None):  # torchrun stops all when one has ended
            reasons = Ranks.current().reasons()
        if not reasons:
            raise
        gone = UserError("\n".join(reasons))
        gone.__dict__.update(error.__dict__)
        raise gone from error
    finally:
        Ranks.current().say_over()

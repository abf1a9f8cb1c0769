"""A command that torchrun started several times for one run: the first process does what is seen, the others follow.

Nothing here imports torch in a command that is given once.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from cifar.base import signals
from cifar.base.errors import UserError
from cifar.commands.messages.exits import end_at_once
from cifar.commands.messages.explain import explain

if TYPE_CHECKING:
    from cifar.training.distributed import GoneError

SWEEP_FLAGS = ("-m", "--multirun")


def is_rank() -> bool:
    """Return whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def together(command: Callable[[], None], arguments: Sequence[str]) -> None:
    """Call the command as rank 0; as another rank follow it."""
    if int(os.environ["RANK"]) > 0:
        with signals.quiet():
            follow_silently()
        return
    if {*SWEEP_FLAGS} & {*arguments}:
        raise UserError(
            "A sweep is not possible under torchrun, whose processes make one run together. Without torchrun, "
            "hydra/launcher=joblib hydra.launcher.n_jobs=N works on N runs at a time, each on a GPU of its own."
        )
    from cifar.training.distributed import join, part

    join()
    with reasons_told():
        command()
    part()


def refuse(text: str) -> NoReturn:
    """Raise `UserError` as rank 0; any other one leaves as if all were well, so that torchrun lets that one speak."""
    if int(os.environ["RANK"]) > 0:
        sys.exit()
    raise UserError(text)


def follow_silently() -> None:
    """Follow rank 0, and end as it does: while that lives, it says what there is to say, also what went wrong here."""
    try:
        from cifar.experiment.followers import follow
        from cifar.training.distributed import GoneError, Ranks, is_to_speak, join, part

        try:
            join()
            follow()
        except GoneError as error:
            with signals.deferred(lambda: None):  # torchrun stops all when one has ended
                if is_to_speak():
                    print(error, file=sys.stderr)
            sys.exit(signals.exit_code() if signals.has_come() else 1)
        except Exception as error:
            text = explain(error) or "".join(traceback.format_exception(error))
            Ranks.current().leave_saying(f"Process {Ranks.current().rank}: {text}")
            sys.exit(1)
        part()
        # Nothing is left to write, and a thread of torch's that outlives Python would abort, a failure to torchrun.
        end_at_once(0)
    except KeyboardInterrupt:
        sys.exit(signals.exit_code())


@contextmanager
def reasons_told() -> Iterator[None]:
    """Raise what other ranks have said of their end instead of the error that they are gone."""
    from cifar.training.distributed import Ranks

    try:
        yield
    except (UserError, KeyboardInterrupt) as error:
        gone = gone_before(error)
        if gone is None:
            raise
        with signals.deferred(lambda: None):  # torchrun stops all when one has ended
            reasons = Ranks.current().reasons()
        if not reasons:
            raise gone from None
        told = UserError("\n".join(reasons))
        told.__dict__.update(gone.__dict__)
        raise told from gone
    finally:
        Ranks.current().say_over()


def gone_before(error: BaseException | None) -> "GoneError | None":
    """Return the error that another rank is gone, if that is it or it was being dealt with when it came."""
    from cifar.training.distributed import GoneError

    while error is not None and not isinstance(error, GoneError):
        error = error.__context__
    return error

"""Every exit of every command: one message for what the user can mend, a traceback for a fault of ours, exit codes.

Nothing here imports torch.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from cifar.base import signals, streams
from cifar.base.errors import StoppedError, UserError
from cifar.commands.messages.explain import explain

OUR_FAULT = "This is a fault of cifar-framework: please report it with the lines above."


@signals.handled()
def guard(command: Callable[[], Any]) -> None:
    """Call a command; what the user can mend ends in one message and exit code 1, a signal in 128 plus its number.

    With the environment variable HYDRA_FULL_ERROR=1 the traceback is shown all the same.
    """
    show_tracebacks = "HYDRA_FULL_ERROR" in os.environ
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises its errors here instead of printing them
    streams.secure()
    try:
        refuse_what_hydra_cant_read()
        with signals.pipe_may_close():
            command()
    except KeyboardInterrupt as error:
        leave(error)
    except Exception as error:
        message = explain(error)
        if signals.has_come():
            is_expected = isinstance(error, StoppedError) or type(error).__module__.startswith("joblib")
            if message is not None and not is_expected:
                print(message, file=sys.stderr)
            elif not is_expected:  # joblib's is about the workers that the signal stopped
                traceback.print_exception(error)
            leave(error)
        if show_tracebacks:
            raise
        if message is None:
            traceback.print_exception(error)
            message = OUR_FAULT
        sys.exit(message)


def refuse_what_hydra_cant_read() -> None:
    """Raise `UserError` for an interpreter, or a word on the command line, with which Hydra fails anywhere."""
    if not __debug__:
        raise UserError(
            "python -O is not possible: it takes out the assert statements, and Hydra 1.3 needs its own. "
            "Leave out -O, or unset PYTHONOPTIMIZE."
        )
    for word in sys.argv[1:]:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise UserError(f"{word!a} can't be read: it is not UTF-8. Rename the file, or link to it.")


def leave(error: BaseException) -> None:
    """End the process with the exit code of the signal that asked for it."""
    print(f"Interrupted. {getattr(error, 'way_on', '')}".strip(), file=sys.stderr)
    if getattr(error, "is_hasty", False):
        end_at_once(signals.exit_code())
    sys.exit(signals.exit_code())


def end_at_once(code: int) -> NoReturn:
    """End the process without Python's own end, which waits for threads and may run into them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""The command line around Hydra: what the user sees at the end of a command, and when something goes wrong.

Nothing here imports torch before the configuration is known to be good.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from cifar import signals, streams, sweeper
from cifar.config import RULES, unknown_key
from cifar.errors import Passing, StoppedError, UserError
from cifar.resume import place


def start(main: Callable[[], Any]) -> None:
    """Call Hydra's `main`, guarded, with our sweeper instead of Hydra's."""

    def command() -> None:
        sys.argv[1:] = place(sys.argv[1:])
        sweeper.register()
        try:
            main()
        except Passing as passing:
            raise passing.error from None

    guard(command)


@signals.handled()
def guard(command: Callable[[], Any]) -> None:
    """Call a command; what the user can mend ends in one message and exit code 1, a signal in 128 plus its number.

    With the environment variable HYDRA_FULL_ERROR=1 the traceback is shown all the same.
    """
    show_tracebacks = "HYDRA_FULL_ERROR" in os.environ
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises its errors here instead of printing them
    streams.secure()
    try:
        with signals.pipe_may_close():
            command()
    except KeyboardInterrupt as error:
        leave(error)
    except Exception as error:
        if signals.has_come():
            if isinstance(error, (UserError, OSError)) and not isinstance(error, StoppedError):
                print(error, file=sys.stderr)
            elif not isinstance(error, StoppedError) and not type(error).__module__.startswith("joblib"):
                traceback.print_exception(error)  # joblib's is about the workers that the signal stopped
            leave(error)
        if show_tracebacks or not isinstance(error, (UserError, HydraException, OmegaConfBaseException, OSError)):
            raise
        sys.exit(explain(error))


def leave(error: BaseException) -> None:
    """End the process with the exit code of the signal that asked for it."""
    print(f"Interrupted. {getattr(error, 'way_on', '')}".strip(), file=sys.stderr)
    if getattr(error, "is_hasty", False):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(signals.exit_code())
    sys.exit(signals.exit_code())


def explain(error: Exception) -> str:
    """Return one message for an error in the configuration that says what is allowed."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice} is not possible: there is {', '.join(error.options)}."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if not isinstance(cause, OmegaConfBaseException):
        return str(error)
    key, parent = str(cause.full_key), cause.parent_node
    if isinstance(cause, GrammarParseError):
        return f"{key}: {str(cause.msg).rstrip('.')}. Such a ${{…}} can't be read; it may need quotes."
    if isinstance(parent, DictConfig) and cause.key not in parent:
        return str(unknown_key(key, [str(name) for name in parent if name != "hydra"]))
    allowed = f" It takes {RULES[key][0]}." if key in RULES else ""
    return f"{key}: {str(cause.msg).splitlines()[0].rstrip('.')}.{allowed}"

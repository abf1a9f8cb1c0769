"""Exceptions that stand for something the user can mend, and how a run's end is written down."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class UserError(ValueError):
    """Name the key, its value and what is allowed; the command line shows it as one message, no traceback."""

    status = "failed"


class StoppedError(UserError):
    """A launcher's worker ended a job, or did not begin it, because a signal stopped the sweep."""

    status = "interrupted"


class UnknownKeyError(UserError):
    """There is no such `key` (with dots) in the configuration."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message, key)  # both, so that a worker process can send the exception to another
        self.message, self.key = message, key

    def __str__(self) -> str:
        return self.message


class DivergedError(UserError):
    """The training loss or the gradient is no longer finite; `facts` goes into summary.json beside the message."""

    status = "diverged"

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message, facts)  # both, so that a worker process can send the exception to another
        self.message, self.facts = message, facts

    def __str__(self) -> str:
        return self.message


class PrunedError(UserError):
    """A search ended the run because it promised less than others; its test images were not looked at."""

    status = "pruned"


def describe_end(error: BaseException) -> dict[str, Any]:
    """Return the entries of summary.json for a run that `error` ended."""
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted"}
    if isinstance(error, DivergedError):
        return {"status": error.status, "error": str(error), **error.facts}
    if isinstance(error, UserError):
        return {"status": error.status, "error": str(error)}
    return {"status": "failed", "error": f"{type(error).__name__}: {error}"}


class Passing(BaseException):
    """An `error` of a single run on its way past Hydra, which would print a line of its own above the message."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def continued_by(command: Callable[[], str | None]) -> Iterator[None]:
    """Let what ends the block early know, as `way_on`, with which command to go on, if it does not know yet."""
    try:
        yield
    except BaseException as error:
        if (text := command()) is not None:
            error.__dict__.setdefault("way_on", f"Continue with: {text}")
        raise

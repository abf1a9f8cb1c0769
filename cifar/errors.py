"""Exceptions that stand for something the user can mend, and how a run's end is written down."""

from typing import Any


class UserError(ValueError):
    """Name the key, its value and what is allowed; the command line shows it as one message, no traceback."""

    status = "failed"


class DivergedError(UserError):
    """The training loss is no longer a finite number."""

    status = "diverged"


def describe_end(error: BaseException) -> dict[str, Any]:
    """Return the entries of summary.json for a run that `error` ended."""
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted"}
    if isinstance(error, UserError):
        return {"status": error.status, "error": str(error)}
    return {"status": "failed", "error": f"{type(error).__name__}: {error}"}

"""Ctrl-C, SIGTERM, SIGHUP, SIGUSR2: the first lets the running step end and its state be saved, another stops at once.

One process has one set of handlers, so this module keeps the state itself. `handled` is the context in which they
count, `deferred` the one in which the first signal waits for `check`; anywhere else it raises
`Interrupted` there and then.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any

CLOSED_PIPE = 141  # 128 plus SIGPIPE's number, as a shell has it
NEAR_LIMIT = signal.SIGUSR2  # a cluster sends it some time before a job's limit
TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, NEAR_LIMIT)  # SIGHUP: the terminal or the connection is gone
STOPPING = "Stopping: the running step is finished and saved first. Once more stops at once.\n"
SAME_SECONDS = 0.5  # a terminal and a parent process may both deliver one and the same Ctrl-C

_received: int | None = None
_received_at = 0.0
_last_words: Callable[[], None] | None = None  # not None while deferred
_is_quiet = False  # whether another process says what is to be said
_before: dict[int, Any] = {}  # the handlers that were there when ours were installed


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.is_hasty = False  # whether something was left running that the process's end should not wait for


def install() -> None:
    """Take over the signals in this process, unless it is a thread's call or was done before.

    What is ignored stays so: SIGHUP under nohup, SIGINT in a shell's background.
    """
    if threading.current_thread() is threading.main_thread():
        for signum in TAKEN:
            if signal.getsignal(signum) not in (_handle, signal.SIG_IGN):
                _before[signum] = signal.signal(signum, _handle)


def restore() -> None:
    """Give the signals back to those who had them before `install`, and forget that one has come."""
    global _received
    _received = None
    if threading.current_thread() is threading.main_thread():
        while _before:
            signum, handler = _before.popitem()
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)  # None: not one of Python's


@contextmanager
def handled() -> Iterator[None]:
    """Take over the signals until the end; beyond it when one has come that ends the process."""
    if _before and not has_come():  # within another such context
        yield
        return
    restore()
    install()
    try:
        yield
    except SystemExit:
        if not has_come():
            restore()
        raise
    except BaseException:
        restore()
        raise
    restore()


def is_worker() -> bool:
    """Return whether a launcher started this process to run jobs in it."""
    return multiprocessing.parent_process() is not None


def check() -> None:
    """Raise `Interrupted` if a signal has come."""
    if _received is not None:
        raise Interrupted(_received)


def number() -> int:
    """Return the number of the signal that has come, or 0."""
    return _received or 0


def pass_on(signum: int) -> None:
    """Take note of a signal, if it is not 0, that has come to another process which works on the same."""
    global _received, _received_at
    if signum and _received is None:
        _received, _received_at = signum, monotonic()
        if not _is_quiet:
            _print(STOPPING)


def exit_code() -> int:
    """Return 128 plus the number of the signal that has come, or 130."""
    return 128 + (_received or signal.SIGINT)


def has_come() -> bool:
    """Return whether a signal has come."""
    return _received is not None


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing when a signal comes: another process does, which works on the same."""
    global _is_quiet
    _is_quiet = True
    try:
        yield
    finally:
        _is_quiet = False


@contextmanager
def deferred(last_words: Callable[[], None]) -> Iterator[None]:
    """Let the first signal wait for `check`; another one calls `last_words` and ends the process."""
    global _last_words
    _last_words = last_words
    try:
        yield
    finally:
        _last_words = None


def _handle(signum: int, frame: FrameType | None) -> None:
    global _received, _received_at
    if signum == signal.SIGHUP and _received is not None:
        return  # shells and service managers send it after another one; nobody is impatient
    if _received == signal.SIGHUP:
        _received, _received_at = signum, monotonic()  # sent by those that close a session: a first one still
        return
    if _received is not None:
        if monotonic() - _received_at > SAME_SECONDS:
            _stop_at_once(signum)
        return
    _received, _received_at = signum, monotonic()
    children = multiprocessing.active_children()  # a launcher's workers: they end their steps, then the sweep ends
    if _last_words is None and not children and not is_worker():
        raise Interrupted(signum)
    for child in children:
        child.terminate()
    if not is_worker() and not _is_quiet:
        _print(STOPPING)


def _stop_at_once(signum: int) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    if _last_words is not None:
        with suppress(OSError):
            _last_words()
    os._exit(128 + signum)


def _print(text: str) -> None:
    """Write to stderr past Python's buffers, which the signal may have interrupted."""
    with suppress(OSError):
        os.write(2, text.encode())


@contextmanager
def pipe_may_close() -> Iterator[None]:
    """End the process without a word when the reader of its output, such as head, has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python's own last flush goes
        sys.exit(CLOSED_PIPE)

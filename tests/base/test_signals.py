"""Signals within one process: what they mean, and that the handlers go back to those who had them."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from cifar.base import signals

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="Python handles signals in the main thread"
)


@pytest.fixture(autouse=True)
def _harmless() -> Iterator[None]:
    """Let a signal that nobody has taken over do nothing to the test's process."""
    before = {signum: signal.signal(signum, harmless) for signum in signals.TAKEN}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def harmless(*_: object) -> None:
    """Do nothing."""


def handlers() -> list[object]:
    """Return who gets each of the signals."""
    return [signal.getsignal(signum) for signum in signals.TAKEN]


@pytest.mark.parametrize("signum", signals.TAKEN)
def test_a_signal_waits_for_the_step_and_its_number_is_the_exit_code(signum: int) -> None:
    with signals.handled(), signals.deferred(lambda: None):
        signals.check()
        os.kill(os.getpid(), signum)
        assert signals.has_come()
        assert signals.exit_code() == 128 + signum
        with pytest.raises(signals.Interrupted):
            signals.check()


def test_handlers_are_given_back_and_a_second_use_knows_nothing_of_the_first() -> None:
    for _ in range(2):
        with contextlib.suppress(signals.Interrupted), signals.handled():
            assert harmless not in handlers()
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("nothing was raised")
        assert handlers() == [harmless] * len(signals.TAKEN)
        assert not signals.has_come()
    with signals.handled():
        with signals.handled():
            assert harmless not in handlers()
        assert harmless not in handlers()
    assert handlers() == [harmless] * len(signals.TAKEN)


def test_while_the_process_ends_for_a_signal_the_handlers_stay() -> None:
    """Else the second of two that a terminal and a parent deliver would end it in a traceback."""
    with contextlib.suppress(SystemExit), signals.handled(), signals.deferred(lambda: None):
        os.kill(os.getpid(), signal.SIGINT)
        sys.exit(signals.exit_code())
    assert harmless not in handlers()
    with signals.handled():
        assert not signals.has_come()
    assert handlers() == [harmless] * len(signals.TAKEN)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.handled():
        os.kill(os.getpid(), signal.SIGHUP)
        assert not signals.has_come()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_those_who_close_a_session_may_say_so_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[int] = []
    monkeypatch.setattr(signals, "_stop_at_once", stopped.append)
    monkeypatch.setattr(signals, "SAME_SECONDS", -1.0)
    with signals.handled(), signals.deferred(lambda: None):
        for signum in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), signum)
        assert stopped == []
        assert signals.exit_code() == 143
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped == [signal.SIGTERM]

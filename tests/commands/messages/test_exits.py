"""The end of a process: at once, and with what it printed."""

import os
import subprocess
import sys

import pytest

from cifar.commands.app import ranks

PROGRAM = """
import atexit, sys
from cifar.commands.messages.exits import end_at_once
atexit.register(print, "Python's own end")
sys.stdout.write("told")
sys.stderr.write("said")
end_at_once(3)
"""


def test_an_end_at_once_keeps_what_was_printed_and_leaves_python_no_time() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "told", "said")


def test_a_follower_ends_at_once_when_the_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("cifar.training.distributed.join", lambda: done.append("join"))
    monkeypatch.setattr("cifar.experiment.followers.follow", lambda: done.append("follow"))
    monkeypatch.setattr("cifar.training.distributed.part", lambda: done.append("part"))

    def leave(code: int) -> None:
        done.append(f"exit {code}")

    monkeypatch.setattr(os, "_exit", leave)
    ranks.follow_silently()
    assert done == ["join", "follow", "part", "exit 0"]

"""A folder's lock, as processes of this machine and of others meet it; the others' are files that are written here."""

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar.base import locks
from cifar.base.errors import UserError
from cifar.base.locks import OWNER, Held, is_locked, locked

THEIRS = "process 12 on another-node (SLURM job 7)\n"


def leave(folder: Path, text: str, age: float) -> None:
    """Write a note of the owner whose last sign of life is so many seconds old."""
    (folder / OWNER).write_text(text)
    os.utime(folder / OWNER, (time.time() - age,) * 2)


def wait_for(is_true: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 10
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert is_true()


def test_the_owner_is_named_and_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    with locked(tmp_path):
        assert is_locked(tmp_path)
        text = f"process {os.getpid()} on {platform.node()} (SLURM job 41)"
        assert (tmp_path / OWNER).read_text() == f"{text}\n"
        with pytest.raises(UserError, match=f"in use by {text.replace('(', '.').replace(')', '.')}. Wait for it"):
            locks.acquired(tmp_path)
    assert not is_locked(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_dead_process_of_this_machine_blocks_nobody(tmp_path: Path) -> None:
    leave(tmp_path, f"process 999999 on {platform.node()}\n", age=0)
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert (tmp_path / OWNER).read_text() == locks.own_name()


def test_another_machines_process_counts_as_alive_until_it_is_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave(tmp_path, THEIRS, age=locks.SILENT_SECONDS - 20)
    assert is_locked(tmp_path)
    with (
        pytest.raises(UserError, match=r"process 12 on another-node \(SLURM job 7\), whose last sign of life is 7\d s"),
        locked(tmp_path),
    ):
        raise AssertionError("it was taken")
    assert (tmp_path / OWNER).read_text() == THEIRS
    leave(tmp_path, THEIRS, age=locks.SILENT_SECONDS + 20)
    assert not is_locked(tmp_path)
    with caplog.at_level(logging.WARNING), locked(tmp_path):
        assert "process 12 on another-node (SLURM job 7), silent for 11" in caplog.text
        assert (tmp_path / OWNER).read_text() == locks.own_name()


def test_a_dead_process_of_another_machine_is_waited_for_and_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SILENT_SECONDS", 1.0)
    for text in (None, f"process 999999 on {platform.node()}\n"):
        if text is not None:
            leave(tmp_path, text, age=0)
        start = time.monotonic()
        locks.await_silence(tmp_path)
        assert time.monotonic() - start < 0.5
    leave(tmp_path, THEIRS, age=0)
    start = time.monotonic()
    locks.await_silence(tmp_path)
    assert time.monotonic() - start > 0.9
    with locked(tmp_path):
        assert (tmp_path / OWNER).read_text() == locks.own_name()

    monkeypatch.setattr(locks, "SILENT_SECONDS", 60.0)
    leave(tmp_path, THEIRS, age=30)
    threading.Timer(0.5, os.utime, [tmp_path / OWNER]).start()
    locks.await_silence(tmp_path)
    assert (locks.silence(tmp_path / OWNER) or 0) < 30
    with pytest.raises(UserError, match="in use by process 12 on another-node"), locked(tmp_path):
        raise AssertionError("it was taken")


def test_one_that_was_taken_for_dead_notices(tmp_path: Path) -> None:
    with locked(tmp_path):
        held = Held(tmp_path)
        held.check()
        (tmp_path / OWNER).unlink()
        leave(tmp_path, THEIRS, age=0)
        assert not held.is_same()
        with pytest.raises(UserError, match="has been taken over by process 12 on another-node"):
            held.check()
    assert (tmp_path / OWNER).read_text() == THEIRS


def test_a_place_is_taken_by_one_at_a_time(tmp_path: Path) -> None:
    heir = tmp_path / locks.HEIR
    with locks.only_one(heir) as first, locks.only_one(heir) as second:
        assert (first, second) == (True, False)
    assert not heir.exists()
    leave(tmp_path, THEIRS, age=locks.SILENT_SECONDS + 20)
    heir.touch()
    os.utime(heir, (time.time() - locks.SILENT_SECONDS - 20,) * 2)  # of one that died at it
    with locked(tmp_path):
        assert (tmp_path / OWNER).read_text() == locks.own_name()
    assert not heir.exists()


def test_of_many_that_take_a_dead_ones_place_at_once_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the operating system's lock, as on a file system that does not carry it to other machines."""
    names = threading.local()
    monkeypatch.setattr(locks, "own_name", lambda: names.own)
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        leave(folder, THEIRS, age=locks.SILENT_SECONDS + 60)
        start, won = threading.Barrier(8), list[str]()

        def take(number: int, folder: Path = folder, start: threading.Barrier = start, won: list[str] = won) -> None:
            names.own = f"process {number} on node-{number}\n"
            start.wait()
            try:
                locks.take_place(folder)
            except UserError:
                return
            won.append(names.own)

        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [(folder / OWNER).read_text()]


def test_signs_of_life_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "ALIVE_SECONDS", 0.01)
    with locked(tmp_path):
        leave(tmp_path, locks.own_name(), age=1000)
        wait_for(lambda: (locks.silence(tmp_path / OWNER) or 0) < 100)
        leave(tmp_path, THEIRS, age=1000)
        time.sleep(0.1)
        assert (locks.silence(tmp_path / OWNER) or 0) > 900


def test_a_look_at_the_lock_stops_nobody_from_taking_it(tmp_path: Path) -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_locked(tmp_path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(50):
            with locked(tmp_path):
                pass
    finally:
        stop.set()
        looker.join()

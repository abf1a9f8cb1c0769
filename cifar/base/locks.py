"""Who may write to a folder: one process, on whatever machine that shares the file system.

Two things say so. `.lock` is locked by the operating system, which ends that with the process: nobody is blocked by a
dead one on the same machine. Whether it reaches other machines depends on how the file system is mounted. So
`.lock-owner` names the process too, and its time of change is renewed while that lives. Of another machine's process
nothing else can be known: it counts as dead when its sign of life is older than `SILENT_SECONDS`.
"""

import logging
import os
import platform
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep, time

from filelock import FileLock, Timeout

from cifar.base.errors import UserError
from cifar.base.in_place import Watched, no_links, refuse_links

log = logging.getLogger(__name__)

LOCK, OWNER, HEIR = ".lock", ".lock-owner", ".lock-heir"
ALIVE_SECONDS = 10.0  # between two signs of life
SILENT_SECONDS = 90.0  # … a file system may show them to other machines a minute late
LOOK_SECONDS, LOOKS = 0.05, 4  # somebody may just be looking whether the folder is locked
OWNED = re.compile(r"process \d+ on (?P<host>.*?)( \(SLURM job [\d_]+\))?", re.DOTALL)


class Held:
    """The files that say that a folder is this process's: whoever removes or replaces one has taken it over."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock, self.owner = folder, Watched(folder / LOCK), owner(folder)

    def is_same(self) -> bool:
        """Return whether the folder is still this process's."""
        return self.lock.is_same() and (self.owner is None or owner(self.folder) == self.owner)

    def check(self) -> None:
        """Raise `UserError` if another process has taken the folder over."""
        self.lock.check()
        if not self.is_same():
            raise UserError(
                f"{self.folder} has been taken over by {owner(self.folder) or 'another program'}, to which this "
                "process was dead: it gave no sign of life for long. It stops; what it had saved is there."
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process off the folder, which is made if absent; raise `UserError` naming the one that is there.

    A process of another machine that has given no sign of life for long is said to be dead, and its place is taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    lock = acquired(folder)
    try:
        take_place(folder)
        stop = threading.Event()
        threading.Thread(target=stay_alive, args=(folder / OWNER, stop), daemon=True).start()
        try:
            for leftover in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
                if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", leftover.name) and leftover.is_file():
                    leftover.unlink()
            yield
        finally:
            stop.set()
            with suppress(OSError):
                if (folder / OWNER).read_text() == own_name():  # else another machine has taken it for dead
                    (folder / OWNER).unlink()
    finally:
        lock.release()


def acquired(folder: Path) -> FileLock:
    """Return the operating system's lock on the folder, which is held now; raise `UserError` if another has it."""
    lock = FileLock(folder / LOCK)
    for _ in range(LOOKS):
        try:
            lock.acquire(timeout=0)
            return lock
        except Timeout:
            sleep(LOOK_SECONDS)
    raise in_use(folder)


def in_use(folder: Path) -> UserError:
    """Return the error that names who is in the folder."""
    who = owner(folder) or "another process"
    seconds = silence(folder / OWNER)
    elsewhere = f", whose last sign of life is {seconds:.0f} s old" if is_foreign(who) and seconds is not None else ""
    return UserError(f"{folder} is in use by {who}{elsewhere}. Wait for it, or stop it, or take another folder.")


def take_place(folder: Path) -> None:
    """Write down that the folder is this process's; raise `UserError` while another machine's process lives in it."""
    path = folder / OWNER
    while not written(path):
        before = owner(folder)
        if before is None:  # it has just left
            continue
        seconds = silence(path) if is_foreign(before) else None  # one of this machine had lost its lock by dying
        if is_foreign(before) and seconds is None:
            continue
        if seconds is not None and seconds < SILENT_SECONDS:
            raise in_use(folder)
        with only_one(folder / HEIR) as is_heir:
            if is_heir and owner(folder) == before:  # else somebody was faster
                if seconds is not None:
                    log.warning(f"{folder} was in use by {before}, silent for {seconds:.0f} s: taken over.")
                path.unlink(missing_ok=True)


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Tell one process at a time, of those on all machines, that it may go on; the others wait a little."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        if (silence(path) or 0) > SILENT_SECONDS:  # it died at it
            path.unlink(missing_ok=True)
        sleep(LOOK_SECONDS)
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)


def written(path: Path) -> bool:
    """Return whether the file was made, at once with this process's name in it; False: there is one."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        aside.write_text(own_name())
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            with suppress(FileExistsError), path.open("x") as file:
                file.write(own_name())
                return True
            return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def stay_alive(path: Path, stop: threading.Event) -> None:
    """Renew the file's time of change until told to stop; one that is another's by now is left alone."""
    while not stop.wait(ALIVE_SECONDS):
        with suppress(OSError):
            if path.read_text() == own_name():
                os.utime(path)


def own_name() -> str:
    """Return the process, the machine and the SLURM job, by which others know who is there."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"process {os.getpid()} on {platform.node()}{f' (SLURM job {job})' if job else ''}\n"


def owner(folder: Path) -> str | None:
    """Return who is said to be in the folder; None: nobody."""
    try:
        with open(folder / OWNER, opener=no_links) as file:
            return " ".join(file.read(1000).split()) or "another process"
    except (OSError, ValueError):
        return None


def is_foreign(name: str) -> bool:
    """Return whether the owner is a process of another machine, of which the operating system may know nothing."""
    found = OWNED.fullmatch(name)
    return found is not None and found["host"] != platform.node()


def await_silence(folder: Path) -> None:
    """Wait for as long as another machine's process may be dead without being known to be; return if it lives."""
    path, who, before = folder / OWNER, owner(folder), 0.0
    while who is not None and is_foreign(who) and owner(folder) == who:
        seconds = silence(path)
        if seconds is None or seconds < before or seconds > SILENT_SECONDS:
            return
        before = seconds
        sleep(min(1.0, SILENT_SECONDS - seconds + LOOK_SECONDS))


def silence(path: Path) -> float | None:
    """Return for how many seconds the file has not changed, by the file system's own clock; None: it is gone.

    Machines' clocks differ, so a file that is written now tells the time.
    """
    now = path.with_name(f".clock.{secrets.token_hex(4)}.tmp")
    try:
        now.touch()
        return max(0.0, now.stat().st_mtime - path.stat().st_mtime)
    except OSError:  # the file is gone, or it is in a folder in which one may only read
        return max(0.0, time() - path.stat().st_mtime) if path.exists() else None
    finally:
        with suppress(OSError):
            now.unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Return whether a live process works in the folder; of another machine's the last sign of life is looked at."""
    who = owner(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        pass
    else:
        lock.release()
    seconds = silence(folder / OWNER) if who is not None and is_foreign(who) else None
    return seconds is not None and seconds < SILENT_SECONDS


def seems_alive(folder: Path) -> bool:
    """Return whether a live process says that it works in the folder; nothing in it is touched, not even the lock."""
    who = owner(folder)
    try:
        is_silent = time() - (folder / OWNER).stat().st_mtime > SILENT_SECONDS
    except OSError:
        return False
    found = re.match(r"process (\d+) on ", who or "")
    if is_silent or found is None or who is None or is_foreign(who):
        return not is_silent and who is not None
    try:
        os.kill(int(found[1]), 0)  # asks only whether there is such a process
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True

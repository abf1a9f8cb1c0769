"""Where a search's study is kept: a file in its folder, for one machine, or a place that several machines reach.

On a home that is shared every process gives a sign of life for its trial now and then, and the others know by its
absence that the process, or its machine, is gone. No clocks are compared: each watches the signs with its own.
"""

import os
import platform
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from cifar.base.locks import is_locked, locked
from cifar.experiment.stored.trust import STUDY

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial

CLAIM_LOCK = ".claim.lock"
NAME = "search"  # of the study within a file
WAIT_SECONDS = 60  # for other processes that write to the database
BEAT = "beat"  # the trial's attribute that changes as long as its process lives


class Home:
    """study.db in the search's folder, for the processes of one machine.

    A process that is gone is known by the lock of its trial's folder, which the operating system has ended.
    """

    is_shared = False

    def __init__(self, folder: Path, file: str = STUDY) -> None:
        self.folder, self.path, self.name = folder, folder / file, NAME

    @property
    def shown(self) -> str:
        """Where that is, as messages may tell it."""
        return str(self.path)

    @property
    def typed(self) -> list[str]:
        """The words of a command that continues the search, beside its folder."""
        return []

    @property
    def places(self) -> Path:
        """The folder in which the processes of one machine side by side know each other."""
        return self.folder

    def exists(self) -> bool:
        """Return whether a search was begun here."""
        return self.path.exists()

    def storage(self) -> "BaseStorage":
        """Return Optuna's storage."""
        return storage_in(self.path)

    @contextmanager
    def founding(self) -> "Iterator[BaseStorage]":
        """Give a storage for a new study, which is there whole or not at all, however the process ends."""
        with whole_file(self.path) as storage:
            yield storage

    def alone(self) -> AbstractContextManager[None]:
        """Keep off those who may not work on the search at the same time: here every other command."""
        return locked(self.folder)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let one process at a time do what is inside."""
        with FileLock(self.folder / CLAIM_LOCK):
            yield

    def is_gone(self, trial: "FrozenTrial", number: "int | None") -> bool:
        """Return whether the process that works on the trial, which is the run of that number, is gone."""
        return number is None or not is_locked(self.folder / str(number))

    def leave_copy(self) -> None:
        """Leave in the folder what reports need of the study, if it is kept elsewhere."""


class SharedHome(Home):
    """A home for the processes of several machines, which join a search by the same command.

    A trial whose process has given no sign of life for `grace` seconds is given to another one.
    """

    is_shared = True

    def __init__(self, folder: Path, grace: float, file: str) -> None:
        super().__init__(folder, file)
        self.grace = grace
        self.signs: dict[int, tuple[Any, float]] = {}  # of each trial: the last one, and when it was first seen

    @property
    def places(self) -> Path:
        """Each machine has its own."""
        return self.folder / f".{platform.node()}"

    @contextmanager
    def founding(self) -> "Iterator[BaseStorage]":
        """Give a storage for a new study, or for one that another process has founded meanwhile."""
        with self.exclusive():
            yield self.storage()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let others in."""
        self.folder.mkdir(parents=True, exist_ok=True)
        yield

    def is_gone(self, trial: "FrozenTrial", number: "int | None") -> bool:
        """Return whether the process that works on the trial, as run `number`, has given no sign for too long."""
        sign, now = trial.user_attrs.get(BEAT), monotonic()
        before, since = self.signs.get(trial.number, (None, now))
        if sign != before or trial.number not in self.signs:
            since = now
        self.signs[trial.number] = sign, since
        run = self.folder / str(number)
        return now - since > self.grace and not (run.exists() and is_locked(run))


def storage_in(path: Path, journal: str = "DELETE") -> "RDBStorage":
    """Return Optuna's storage in a file of SQLite's, with SQLite's journal mode.

    The file is named to SQLite itself, because a URL would read a path with ? or % otherwise.
    """
    import optuna

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
        connection.execute(f"PRAGMA journal_mode={journal}")
        return connection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


@contextmanager
def whole_file(path: Path) -> "Iterator[RDBStorage]":
    """Give a storage in a file of SQLite's that is at `path` when all is written to it, or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        storage = storage_in(temporary, journal="MEMORY")  # no second file that could be left behind
        yield storage
        storage.engine.dispose()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

"""Homes of searches by several machines: a journal in a folder that they share, or a PostgreSQL server."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.base.errors import UserError
from cifar.experiment.stored.trust import JOURNAL, STUDY, STUDY_COPY
from cifar.sweeps.home import CLAIM_LOCK, NAME, Home, SharedHome, whole_file

if TYPE_CHECKING:
    from optuna.storages import JournalStorage, RDBStorage
    from sqlalchemy import URL, Engine

GRACE_SECONDS = 120  # more than a network file system keeps what it knows of a file
BREAK_SECONDS = 60  # after which a lock file counts as left behind by a dead process
POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
STORAGES = "sqlite, journal or postgresql://USER@HOST/DATABASE"


class JournalHome(SharedHome):
    """study.journal in the search's folder on a shared file system: a line for every change (Optuna's journal)."""

    def __init__(self, folder: Path, grace: float) -> None:
        super().__init__(folder, grace, JOURNAL)

    def storage(self) -> "JournalStorage":
        """Return Optuna's storage; raise `UserError` if the journal can't be read."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            backend = JournalFileBackend(str(self.path), lock_obj=journal_lock(self.path))
            return optuna.storages.JournalStorage(backend)
        except Exception as error:  # of whatever kind a line that makes no sense raises in Optuna
            reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
            raise UserError(f"{self.shown} can't be used as a study: {reason}.") from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let one process of all machines at a time do what is inside: by a link, as locks may not work there."""
        from optuna.storages.journal import JournalFileSymlinkLock

        lock = JournalFileSymlinkLock(str(self.folder / CLAIM_LOCK.removesuffix(".lock")), BREAK_SECONDS)
        lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # it was taken for one that is left behind
                lock.release()


class PostgresHome(SharedHome):
    """A database on a PostgreSQL server; the search's name there is that of its folder.

    The folder may be on a file system of each machine's own: what trials came to is kept in the database too.
    """

    def __init__(self, folder: Path, grace: float, url: str) -> None:
        super().__init__(folder, grace, STUDY_COPY)
        self.url, self.name = url, folder.name
        self.parsed()

    def parsed(self) -> "URL":
        """Return the address with our driver; raise `UserError` if it is none."""
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            import psycopg as psycopg
        except ImportError:
            raise UserError(
                "A search in PostgreSQL needs psycopg, which is not installed: pip install 'cifar-framework[postgres]'"
            ) from None
        try:
            return make_url(self.url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError):
            raise UserError(f"{masked(self.url)} is not possible: storage takes {STORAGES}.") from None

    @property
    def shown(self) -> str:
        """The search's name and its database, without a password."""
        return f"{self.name!r} in {masked(self.url)}"

    @property
    def typed(self) -> list[str]:
        """The words of a command that continues the search, without a password."""
        return [f"storage={masked(self.url)}"]

    def exists(self) -> bool:
        """Return whether a search of this name was begun in the database."""
        import optuna

        return self.name in optuna.get_all_study_names(self.storage())

    def engine(self) -> "Engine":
        """Return what opens a connection for each use, so that a server that starts again is found again."""
        from sqlalchemy import NullPool, create_engine

        return create_engine(self.parsed(), poolclass=NullPool, connect_args={"connect_timeout": 10})

    def storage(self) -> "RDBStorage":
        """Return Optuna's storage, whose tables are made if they are not there."""
        import optuna
        from sqlalchemy import NullPool

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        options = {"poolclass": NullPool, "connect_args": {"connect_timeout": 10}}
        with self.advisory_lock("the tables"):
            return optuna.storages.RDBStorage(self.parsed().render_as_string(hide_password=False), options)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let one process of all machines at a time do what is inside."""
        with self.advisory_lock(f"the search {self.name}"):
            yield

    @contextmanager
    def advisory_lock(self, subject: str) -> Iterator[None]:
        """Hold the server's lock of that name, which it ends with the connection, however that ends."""
        from sqlalchemy import text

        key = int.from_bytes(hashlib.sha256(f"cifar tune: {subject}".encode()).digest()[:8], "big", signed=True)
        with self.engine().connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            for name, value in (("idle", 30), ("interval", 10), ("count", 3)):  # a machine that is cut off is noticed
                connection.execute(text(f"SET tcp_keepalives_{name} = {value}"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
            yield

    def leave_copy(self) -> None:
        """Write study-copy.db, from which reports are made without the server."""
        import optuna

        with whole_file(self.path) as copy:
            optuna.copy_study(
                from_study_name=self.name, from_storage=self.storage(), to_storage=copy, to_study_name=NAME
            )


def home_of(folder: Path, storage: str | None = None, grace: float = GRACE_SECONDS) -> Home:
    """Return where the search in the folder is kept, or shall be kept if none was begun there.

    `storage` is what was asked for. What the folder says names no server: that is typed by who wants it used.
    """
    if storage is not None and "://" in storage:
        for name in (STUDY, JOURNAL):
            if (folder / name).exists():
                raise UserError(
                    f"The search in {folder} is kept in {name}: leave out storage=, or take another folder."
                )
        return PostgresHome(folder, grace, storage)
    if (folder / STUDY_COPY).exists():
        raise UserError(
            f"The search in {folder} is kept in a PostgreSQL database: name it again, as storage=postgresql://… ."
        )
    if storage is not None:
        refuse_others(folder, STUDY if storage == "journal" else JOURNAL)
    is_journal = storage == "journal" or (folder / JOURNAL).exists()
    return JournalHome(folder, grace) if is_journal else Home(folder)


def refuse_others(folder: Path, *names: str) -> None:
    """Raise `UserError` if the search in the folder is kept in a file of one of these names."""
    for name in names:
        if (folder / name).exists():
            raise UserError(f"The search in {folder} is kept in {name}: leave out storage=, or take another folder.")


def home_for_reading(folder: Path) -> Home | None:
    """Return what the folder itself has of its search's study, for reports; None if that is nothing."""
    if (folder / JOURNAL).exists():
        return JournalHome(folder, GRACE_SECONDS)
    return next((Home(folder, name) for name in (STUDY, STUDY_COPY) if (folder / name).exists()), None)


def masked(storage: str) -> str:
    """Return a storage as it may be shown and written down: without a password."""
    scheme, is_url, rest = storage.partition("://")
    if not is_url:
        return storage
    parts = re.fullmatch(r"(?:([^:@/?#]*)(:[^@/?#]*)?@)?([^@/?#]*)(/[^@?#]*)?(\?[^@#]*)?", rest)
    if parts is None:  # a password that is not quoted as URLs have it
        return f"{scheme}://…"
    user, password, host, path, query = parts.groups(default="")
    shown = query if "password" not in query.lower() else ""
    return f"{scheme}://{user}{password and ':***'}{'@' if user or password else ''}{host}{path}{shown}"


def is_storage(value: object) -> bool:
    """Return whether the command's word storage can have the value."""
    return isinstance(value, str) and (value in ("sqlite", "journal") or value.partition("://")[0] in POSTGRES)


def journal_lock(path: Path) -> Any:
    """Return Optuna's lock on the journal, which also takes off a last line that a killed process left half written.

    Optuna itself would write the next line behind it and could read neither.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    class MendingLock(JournalFileSymlinkLock):
        def acquire(self) -> bool:
            is_held = super().acquire()
            cut_half_line(path)
            return is_held

    return MendingLock(str(path))


def cut_half_line(path: Path) -> None:
    """Take off what follows the file's last line break."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)

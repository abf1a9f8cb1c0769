"""A PostgreSQL server of the tests' own, from Debian's package, in a folder that goes with it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "open sesame/7"  # with what has to be quoted in a URL
QUOTED = "open%20sesame%2F7"


@dataclass(frozen=True)
class Server:
    """A server that runs; `url` has the password."""

    port: int

    @property
    def url(self) -> str:
        """Where its database is, for `cifar tune storage=…`."""
        return f"postgresql://cifar:{QUOTED}@127.0.0.1:{self.port}/postgres"


def find_programs() -> Path:
    """Return the folder with initdb and pg_ctl, or skip the test."""
    found = shutil.which("initdb")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found is None and not installed:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    return Path(found or installed[-1]).parent


@contextmanager
def postgres() -> Iterator[Server]:
    """Start a server and stop it; skip the test where there is none. As root it runs as the user postgres."""
    programs, user = find_programs(), "postgres" if os.geteuid() == 0 else None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="cifar-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if user is not None:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)

    def call(name: str, *arguments: str) -> None:
        command = [str(programs / name), *arguments]
        done = subprocess.run(command, cwd=folder, user=user, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done

    data, settings = str(folder / "data"), f"-p {port} -h 127.0.0.1 -k {folder} -F"
    try:
        call("initdb", "-D", data, "-U", "cifar", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}")
        call("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", settings, "-w", "start")
        try:
            yield Server(port)
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""Standard streams that are closed, and terminals that hang up, in real processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import QUIET, ROOT, SLOW, read_summary

RUN = [sys.executable, str(ROOT / "run.py"), *QUIET]
# Run the rest of the words as Python with SIGHUP ignored, as nohup does, but with the terminal's streams.
IGNORE = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_nowhere_and_never_a_file_that_is_opened_later(tmp_path: Path, redirection: str) -> None:
    """The text that libraries write to a closed stream's number must not land in a file of the run."""
    code = (
        "import os, sys; from cifar.base import streams; streams.secure(); file = open('kept', 'w')\n"
        "for stream in (sys.stdout, sys.stderr): print('lost', file=stream, flush=True)\n"
        "os.write(1, b''); os.write(2, b'lost'); os.read(0, 0); file.write(str(file.fileno() > 2))"
    )
    command = f'exec "$0" -c "$1" {redirection}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["sh", "-c", command, sys.executable, code], cwd=tmp_path, env=environment, timeout=60)
    assert result.returncode == 0
    assert (tmp_path / "kept").read_text() == "True"


def test_a_run_whose_streams_are_closed_is_a_run_like_others(tmp_path: Path) -> None:
    command = 'exec "$0" "$@" >&- 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["sh", "-c", command, *RUN, "hydra.run.dir=run"]
    assert subprocess.run(words, cwd=tmp_path, env=environment, timeout=120).returncode == 0
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "completed"
    assert "Results: run" in (tmp_path / "run" / "run.log").read_text()


@pytest.mark.parametrize(("is_ignored", "code", "status"), [(False, 129, "interrupted"), (True, 0, "completed")])
def test_a_terminal_that_hangs_up_ends_a_run_that_is_saved_or_one_that_ignores_it_goes_on(
    tmp_path: Path, is_ignored: bool, code: int, status: str
) -> None:
    """Its streams then refuse what is written, which is no fault of the run."""
    master, terminal = os.openpty()
    words = [*RUN, *SLOW, "epochs=4", "checkpoint.every_epochs=null", "hydra.run.dir=run"]
    words = [sys.executable, "-c", IGNORE, *words[1:]] if is_ignored else words
    process = subprocess.Popen(
        ["setsid", "--ctty", *words],
        stdin=terminal, stdout=terminal, stderr=terminal,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1" if is_ignored else ""},
    )  # fmt: skip
    os.close(terminal)
    seen, deadline = b"", time.monotonic() + 100
    while b"Step [5/8]" not in seen:
        seen += os.read(master, 1000)
        assert time.monotonic() < deadline
    os.close(master)
    assert process.wait(100) == code
    assert read_summary(tmp_path / "run")["status"] == status
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    assert "Traceback" not in (tmp_path / "run" / "run.log").read_text()

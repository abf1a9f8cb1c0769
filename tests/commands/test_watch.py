"""cifar watch on a terminal of 80 columns and into a pipe; the terminal is afterwards as it was, however it ends."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from cifar.base.locks import locked
from tests.conftest import ROOT, Start
from tests.reports.live.test_looking import write_running

WATCH = ("-m", "cifar", "watch")
ON, OFF = b"\x1b[?1049h", b"\x1b[?1049l"  # the terminal's other screen
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"  # the cursor
CRASHES = """
import sys
from cifar.commands import main
from cifar.reports.live.looking import Watcher
look, count = Watcher.look, iter(range(9))
def crash(self):
    if next(count):
        raise ZeroDivisionError("a fault of ours")
    return look(self)
Watcher.look = crash
main.main(["watch", "--every", "0.1", *sys.argv[1:]])
"""


def take_terminal() -> None:
    """Make the terminal this process's own, with Ctrl-C as a shell gives it: tests in the background ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A process on a terminal of 24 lines and 80 columns."""

    def __init__(self, arguments: list[str], cwd: Path, **environment: str) -> None:
        self.end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(inner)
        self.inner, self.output = inner, b""
        kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        environment = {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment}
        self.process = subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=environment, stdin=inner,
                                        stdout=inner, stderr=inner, start_new_session=True,
                                        preexec_fn=take_terminal)  # fmt: skip

    def read_until(self, text: bytes, seconds: float = 60) -> None:
        """Read until the text has come."""
        limit = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < limit, self.output
            if select.select([self.end], [], [], 0.1)[0]:
                self.output += os.read(self.end, 1 << 16)

    def finish(self, seconds: float = 60) -> int:
        """Return the exit code, with all that was written read."""
        limit = time.monotonic() + seconds
        while self.process.poll() is None or select.select([self.end], [], [], 0.2)[0]:
            if time.monotonic() > limit:
                self.process.kill()
                raise AssertionError(self.output)
            if select.select([self.end], [], [], 0.1)[0]:
                self.output += os.read(self.end, 1 << 16)
        assert termios.tcgetattr(self.inner) == self.before
        os.close(self.end)
        os.close(self.inner)
        return self.process.returncode


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal_the_page_fits_and_ctrl_c_leaves_it_as_it_was(tmp_path: Path, colour: bool) -> None:
    write_running(tmp_path / "multirun" / "sweep")
    with locked(tmp_path / "multirun" / "sweep" / "1"):
        terminal = Terminal([*WATCH, "--every", "0.1"], tmp_path, **({} if colour else {"NO_COLOR": "1"}))
        terminal.read_until(b"pending")
        terminal.read_until(b"died")
        os.write(terminal.end, b"\x03")
        assert terminal.finish() == 0
    output = terminal.output
    assert output.startswith(ON)
    assert output.index(HIDDEN) < output.index(b"multirun/sweep") < output.rindex(SHOWN)
    assert output.rstrip().endswith(OFF)
    colours = re.findall(rb"\x1b\[[\d;]*3[0-9](?:;\d+)*m", output)
    assert bool(colours) == colour
    frames = output.decode().partition("^C")[0].replace("\r", "").replace("\x1b[H", "\n")
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", frames).splitlines()
    assert max(map(len, lines)) == 80


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(tmp_path: Path) -> None:
    write_running(tmp_path / "sweep")
    terminal = Terminal([*WATCH, "sweep"], tmp_path)
    terminal.read_until(b"jobs done")
    os.write(terminal.end, b"\x1a")
    _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    terminal.read_until(SHOWN + OFF)
    terminal.output = b""
    terminal.process.send_signal(signal.SIGCONT)
    terminal.read_until(ON)
    terminal.read_until(b"jobs done")
    os.write(terminal.end, b"\x03")
    assert terminal.finish() == 0
    assert terminal.output.rstrip().endswith(OFF)


def test_a_crash_and_a_signal_leave_the_terminal_as_it_was_too(tmp_path: Path) -> None:
    write_running(tmp_path / "sweep")
    terminal = Terminal(["-c", CRASHES, "sweep"], tmp_path)
    assert terminal.finish() == 1
    assert terminal.output.index(ON) < terminal.output.index(SHOWN + OFF) < terminal.output.index(b"ZeroDivisionError")
    terminal = Terminal([*WATCH, "sweep"], tmp_path)
    terminal.read_until(b"jobs done")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.finish() == 128 + signal.SIGTERM
    assert SHOWN + OFF in terminal.output


def test_into_a_pipe_the_page_is_plain_and_comes_once(tmp_path: Path, start: Start) -> None:
    write_running(tmp_path / "sweep")
    run = start("sweep", program=WATCH)
    assert run.end() == 0, run.text
    assert "sweep  1 of 5 jobs done, 1 failed, 2 interrupted, 1 pending" in run.output
    assert "\x1b" not in run.output
    assert all(len(line) <= 80 for line in run.output.splitlines())


def test_what_is_no_folder_is_said(tmp_path: Path, start: Start) -> None:
    messages = {
        "": "There is neither outputs nor multirun here. Name a folder: cifar watch DIR",
        "absent": f"{tmp_path / 'absent'}: there is no such folder.",
        ". --every 0": "--every=0: at least 0.1 seconds lie between two looks.",
    }
    for words, message in messages.items():
        run = start(*words.split(), program=WATCH)
        assert (run.end(), run.errors) == (1, message + "\n")

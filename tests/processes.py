"""Real processes of run.py for the tests, forked from one that has imported torch already: seconds saved on each."""

import atexit
import contextlib
import io
import multiprocessing
import multiprocessing.process
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WARM = multiprocessing.get_context("forkserver")
assert isinstance(WARM, ForkServerContext)
WARM.set_forkserver_preload(["tests.warm_imports"])


def child(arguments: list[str], cwd: str, environment: dict[str, str], output: str, errors: str) -> None:
    """Become a process of its own that runs `python ARGUMENTS` as a shell would, and leave it."""
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for path, number in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
    multiprocessing.set_start_method(None, force=True)
    if arguments[0] == "-m" and not hasattr(sys.modules.get(arguments[1]), "__path__"):
        sys.modules.pop(arguments[1], None)
    code = 0
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # the order in which an interpreter ends
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Run:
    """A process of run.py, or of another program, in a session of its own."""

    def __init__(self, cwd: Path, arguments: list[str], logs: Path, **environment: str) -> None:
        logs.mkdir(exist_ok=True)
        number = len([*logs.iterdir()])
        self.paths = logs / f"{number}.out", logs / f"{number}.err"
        for path in self.paths:
            path.touch()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        output, errors = map(str, self.paths)
        self.process = WARM.Process(target=child, args=(arguments, str(cwd), environment, output, errors))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid
        self.seen = 0

    @property
    def output(self) -> str:
        """What it printed to stdout so far."""
        return self.paths[0].read_text()

    @property
    def errors(self) -> str:
        """What it printed to stderr so far."""
        return self.paths[1].read_text()

    @property
    def text(self) -> str:
        """Both of them."""
        return self.output + self.errors

    def wait_for(self, pattern: str, seconds: float = 60) -> None:
        """Wait until the pattern is found in the errors, or in the output after what was found before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            is_alive = self.process.is_alive()
            if found := re.compile(pattern).search(self.output, self.seen):
                self.seen = found.end()
                return
            if re.search(pattern, self.errors):
                return
            assert is_alive, f"it ended before {pattern!r}:\n{self.text}"
            time.sleep(0.01)
        raise AssertionError(f"no line matched {pattern!r}:\n{self.text}")

    def wait_until(self, is_true: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not is_true():
            assert self.process.is_alive(), f"it ended too early:\n{self.text}"
            assert time.monotonic() < deadline, f"it did not come to that:\n{self.text}"
            time.sleep(0.01)

    def send(self, signum: int, to_group: bool = False) -> None:
        """Send a signal to the process, or to its whole group as a terminal does."""
        (os.killpg if to_group else os.kill)(self.pid, signum)

    def kill_in_a_trial(self, search: Path) -> int:
        """Kill it as a power cut does while it trains in a search's folder, and return the run's number."""
        while True:
            self.wait_for(r"Step \[2/")
            self.send(signal.SIGSTOP)
            for owner in search.glob("*/.lock-owner"):
                summary = owner.with_name("summary.json")
                is_own = f"process {self.pid} " in owner.read_text()
                if is_own and summary.exists() and '"status": "running"' in summary.read_text():
                    self.send(signal.SIGKILL)
                    self.end()
                    return int(owner.parent.name)
            self.send(signal.SIGCONT)

    def end(self, seconds: float = 120) -> int:
        """Wait for the end and return the exit code, negative for the signal that killed it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it did not end:\n{self.text}"
        return self.process.exitcode


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of `size` in memory on the folder, or skip the test where that is not allowed."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)

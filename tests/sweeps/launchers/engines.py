"""Real engines on this machine: a SLURM of one node and a Ray cluster of two, each started and stopped in a context."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NEEDED = ("slurmctld", "slurmd", "munge")


class AbsentError(Exception):
    """The engine can't be started here."""


@contextmanager
def environment_with(**variables: str) -> Iterator[None]:
    """Change variables of the environment for as long as the context lasts."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def slurm_started(folder: Path) -> Iterator[None]:
    """Start SLURM, with its files in the folder and the environment that its commands need, and stop it.

    Raises `AbsentError` where that is not possible.
    """
    if missing := [name for name in NEEDED if shutil.which(name, path=SBIN) is None]:
        raise AbsentError(f"SLURM is not installed ({', '.join(missing)}): make cluster does it as root on Debian")
    if os.geteuid() != 0:
        raise AbsentError("only root can start SLURM's daemons")
    script = str(HERE / "slurm.sh")
    with environment_with(SLURM_CONF=str(folder / "slurm.conf"), PATH=SBIN):
        try:
            command = ["sh", script, "start", str(folder), *map(str, free_ports(2))]
            subprocess.run(command, check=True, timeout=120)
            yield
        finally:
            subprocess.run(["scancel", "--user=root"])
            subprocess.run(["sh", script, "stop", str(folder)], check=True, timeout=60)


@dataclass(frozen=True)
class RayCluster:
    """A cluster of two nodes with a core each, the second also with a GPU, if in name only; it may be killed."""

    address: str
    second: "subprocess.Popen[bytes]"


def ray_start(*words: str) -> list[str]:
    """Return the command that starts a node of one core."""
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    ports = ["--min-worker-port=0", "--max-worker-port=0"]
    return [str(Path(sys.executable).parent / "ray"), "start", *words, *common, *ports, "--block"]


@contextmanager
def ray_started(folder: Path) -> Iterator[RayCluster]:
    """Start a head and a second node, with what they print in the folder, and kill them at the end.

    Raises `AbsentError` where Ray is not installed.
    """
    if find_spec("ray") is None:
        raise AbsentError("Ray is not installed: pip install 'cifar-framework[ray]'")
    quick = {
        "RAY_worker_niceness": "0",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "5",
    }
    (port,), nodes = free_ports(1), list[subprocess.Popen[bytes]]()
    with environment_with(RAY_AUTH_MODE="disabled"):  # it listens on this machine only
        try:
            for words in (
                ["--head", "--include-dashboard=false", f"--port={port}"],
                [f"--address=127.0.0.1:{port}", "--num-gpus=1"],
            ):
                path = folder / f"{len(nodes)}.log"
                with path.open("wb") as log:
                    nodes.append(
                        subprocess.Popen(
                            ray_start(*words), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                            env={**os.environ, **quick, "PYTHONPATH": str(HERE.parents[2])},
                        )
                    )  # fmt: skip
                wait_for_text(path, "Ray runtime started", 120)
            yield RayCluster(f"127.0.0.1:{port}", nodes[1])
        finally:
            for node in reversed(nodes):  # as `ray stop`, but of these nodes alone
                kill_tree(node.pid)
                node.wait()


def wait_for_text(path: Path, text: str, seconds: float) -> None:
    """Wait until the text stands in the file."""
    deadline = time.monotonic() + seconds
    while text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def kill_tree(pid: int) -> None:
    """Kill the process and all that it has started, without a word, as a node's end does."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    for one in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)

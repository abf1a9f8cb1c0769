"""The clusters that the tests in this folder run on, each started once and stopped at the end."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

RAY_PORT = 16379
HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "munge")


@pytest.fixture(name="slurm", scope="session")
def _slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start SLURM on this machine and return its folder, or skip the tests where that is not possible."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}): make cluster does it as root on Debian")
    if os.geteuid() != 0:
        pytest.skip("only root can start SLURM's daemons")
    folder = tmp_path_factory.mktemp("slurm")
    script, environment = str(HERE / "slurm.sh"), {**os.environ, "PATH": path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", path)
        try:
            subprocess.run(["sh", script, "start", str(folder)], check=True, env=environment, timeout=120)
            yield folder
        finally:
            subprocess.run(["scancel", "--user=root"], env={**environment, "SLURM_CONF": os.environ["SLURM_CONF"]})
            subprocess.run(["sh", script, "stop", str(folder)], check=True, env=environment, timeout=60)


@dataclass(frozen=True)
class RayCluster:
    """A cluster of two nodes with a core each; the second may be killed."""

    second: "subprocess.Popen[bytes]"


def ray_start(*words: str) -> list[str]:
    """Return the command that starts a node of one core."""
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    ports = ["--min-worker-port=0", "--max-worker-port=0"]
    return [str(Path(sys.executable).parent / "ray"), "start", *words, *common, *ports, "--block"]


@pytest.fixture(name="ray_cluster")
def _ray_cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """Start a head and a second node on this machine, or skip the test where Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'cifar-framework[ray]'")
    quick = {
        "RAY_worker_niceness": "0",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "5",
    }
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # it listens on this machine only
    environment = {**os.environ, **quick, "PYTHONPATH": str(HERE.parents[2])}
    log = (tmp_path_factory.mktemp("ray") / "log").open("wb")
    kept = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, "env": environment}
    head = subprocess.Popen(ray_start("--head", "--include-dashboard=false", f"--port={RAY_PORT}"), **kept)  # type: ignore[call-overload]
    nodes = [head]
    try:
        wait_for_nodes(1, environment)
        nodes.append(subprocess.Popen(ray_start(f"--address=127.0.0.1:{RAY_PORT}"), **kept))  # type: ignore[call-overload]
        wait_for_nodes(2, environment)
        yield RayCluster(nodes[1])
    finally:
        for node in reversed(nodes):  # as `ray stop`, but of these nodes alone
            kill_tree(node.pid)
            node.wait()
        log.close()


def wait_for_nodes(number: int, environment: dict[str, str]) -> None:
    """Wait until the cluster has so many nodes."""
    text, command = "", [str(Path(sys.executable).parent / "ray"), "status", f"--address=127.0.0.1:{RAY_PORT}"]
    for _ in range(30):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        text = result.stdout + result.stderr
        if f"/{number}.0 CPU" in text:
            return
    raise AssertionError(f"the cluster has not {number} nodes:\n{text}")


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

"""Real processes side by side: each has a place of its own, whoever ends first, and what CUDA_VISIBLE_DEVICES says."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cifar.base import shares
from cifar.base.shares import num_cores, read_list, take_share, visible_gpus
from tests.processes import ROOT

PROGRAM = """
import os, sys
from pathlib import Path
from cifar.base.shares import take_share
gpus = sys.argv[3].split() if len(sys.argv) > 3 else None
place = take_share(Path(sys.argv[1]), int(sys.argv[2]), gpus)
print(place, os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS"), flush=True)
sys.stdin.read()
"""
Worker = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(name="worker")
def _worker(tmp_path: Path) -> Iterator[Worker]:
    """Return a function that starts a process which takes a share and keeps it until its input is closed."""
    workers: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        own = {
            key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(tmp_path), *arguments],
                env={**own, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            assert stream is not None
            stream.close()


def said(worker: "subprocess.Popen[str]") -> list[str]:
    """Return the place, the GPU and the number of threads that a worker has."""
    assert worker.stdout is not None
    return worker.stdout.readline().split()


def test_each_has_a_gpu_of_its_own_in_whatever_order_they_end(worker: Worker) -> None:
    gpus = ["0", "1", "2", "3"]
    workers = [worker("4", " ".join(gpus)) for _ in gpus]
    first = [said(one) for one in workers]
    assert sorted(place for place, *_ in first) == gpus
    assert all(place == gpu for place, gpu, _ in first)
    workers[2].kill()  # by the memory, say
    assert workers[0].stdin is not None
    workers[0].stdin.close()
    for index in (0, 2):
        workers[index].wait()
    later = [said(worker("4", " ".join(gpus))) for _ in range(2)]
    assert sorted(later) == sorted([first[0], first[2]])


def test_a_place_is_waited_for_while_a_process_ends(worker: Worker) -> None:
    before = worker("1", "0")
    assert said(before)[0] == "0"
    after = worker("1", "0")
    before.kill()
    assert said(after)[:2] == ["0", "0"]


def test_the_environments_gpus_are_divided_and_more_processes_than_gpus_share(worker: Worker) -> None:
    shown = {"CUDA_VISIBLE_DEVICES": "5, GPU-7a"}
    found = sorted(said(worker("3", **shown)) for _ in range(3))
    assert [entry[:2] for entry in found] == [["0", "5"], ["1", "GPU-7a"], ["2", "5"]]


def test_cores_are_divided_unless_the_environment_says_otherwise(worker: Worker) -> None:
    assert said(worker("2", ""))[2] == str(max(1, num_cores() // 2))
    assert said(worker("2", "", OMP_NUM_THREADS="7"))[2] == "7"


def test_no_gpu_is_named_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, gpus in (("", []), ("-1", []), ("1,-1,2", ["1"]), ("2,0", ["2", "0"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert visible_gpus() == gpus
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(shares, "which", lambda name: None)
    assert visible_gpus() == []


def test_the_list_of_gpus_is_read_with_the_parts_of_those_that_are_divided() -> None:
    text = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-8f6b3c1e-0d52-4d77-9d57-1fcb5a2f0b11)
"""
    assert read_list(text) == [
        "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f",
        "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb",
        "GPU-8f6b3c1e-0d52-4d77-9d57-1fcb5a2f0b11",
    ]


def test_places_that_are_links_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "file").write_text("dear to somebody")
    (tmp_path / shares.PLACES).mkdir()
    (tmp_path / shares.PLACES / "0.lock").symlink_to(tmp_path / "file")
    assert take_share(tmp_path, 1, ["0"]) is None
    assert "None of the 1 places" in caplog.text
    assert (tmp_path / "file").read_text() == "dear to somebody"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ

"""Processes of a search side by side: each has a GPU and cores of its own."""

import multiprocessing
import os
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest

from cifar.experiment.after import no_page
from cifar.sweeps import search
from cifar.sweeps.shared_homes import home_of


def work_and_tell(folder: Path, told: "Queue[tuple[str, str]]") -> None:
    """Be one of two workers, which tell what they have to compute with and end when both have."""

    def tell(*_: Any) -> None:
        told.put((os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]))
        while len([*folder.glob("told.*")]) < 2:
            (folder / f"told.{os.getpid()}").touch()

    vars(search)["work"] = tell
    search.work_beside(home_of(folder, None), 0.0, 0, 2, no_page)


def test_two_workers_have_different_gpus_and_divide_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("cifar.base.shares.num_cores", lambda: 8)
    context = multiprocessing.get_context("fork")
    told: Queue[tuple[str, str]] = context.Queue()
    workers = [context.Process(target=work_and_tell, args=(tmp_path, told)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = {told.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert found == {("3", "4"), ("5", "4")}

"""Processes side by side on one machine: each takes a GPU of its own, or its share of the cores.

A process holds one of as many places as there are processes, by a lock that the operating system ends with it. So no
two have the same place, in whatever order they begin, end or are replaced. Nothing here imports torch, which takes the
number of its threads and the GPUs from the environment when it is first used.
"""

import logging
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from time import sleep

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

PLACES = ".workers"
LOOK_SECONDS, LOOKS = 0.1, 100  # a process that ends may hold its place a moment longer

_held: tuple[Path, FileLock] | None = None  # one process has one place, until it ends


def take_share(folder: Path, num_processes: int, gpus: Sequence[str] | None = None) -> int | None:
    """Take a place among the processes that work for `folder`, with its GPU and its cores, and return its number.

    `gpus` are what CUDA_VISIBLE_DEVICES takes; by default those that this process may see. With fewer GPUs than
    processes some share one. OMP_NUM_THREADS counts if it is given. None: the place of an earlier call, or no place is
    free.
    """
    global _held
    if _held is not None and _held[0] == folder:
        return None
    found = free_place(folder / PLACES, num_processes)
    if found is None:
        log.warning(f"None of the {num_processes} places in {folder / PLACES} is free, so GPUs and cores are shared.")
        return None
    place, lock = found
    _held = (folder, lock)
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(max(1, num_cores() // num_processes))
    visible = visible_gpus() if gpus is None else gpus
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[place % len(visible)]
    return place


def free_place(folder: Path, count: int) -> tuple[int, FileLock] | None:
    """Return a place and the lock that holds it; None if there is none, or no way to lock a file there."""
    if folder.is_symlink():
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(LOOKS):
            for place in range(count):
                path = folder / f"{place}.lock"
                if path.is_symlink():
                    return None
                lock = FileLock(path)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                return place, lock
            sleep(LOOK_SECONDS)
    except (OSError, NotImplementedError):
        pass
    return None


def num_cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, without touching CUDA; those of the environment if it names some."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        parts = [part.strip() for part in named.split(",")]
        return parts[: parts.index("-1")] if "-1" in parts else [part for part in parts if part]
    if which("nvidia-smi") is None:
        return []
    try:
        result = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return read_list(result.stdout) if result.returncode == 0 else []


def read_list(text: str) -> list[str]:
    """Return the ids in what `nvidia-smi -L` prints; a GPU that is divided (MIG) counts by its parts."""
    ids: list[str] = []
    parent: str | None = None
    for kind, name in re.findall(r"^\s*(GPU|MIG) .*\(UUID: ([\w/-]+)\)", text, flags=re.MULTILINE):
        if kind == "MIG" and parent in ids:
            ids.remove(parent)
        parent = name if kind == "GPU" else parent
        ids.append(name)
    return ids

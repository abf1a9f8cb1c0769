"""Measure a sweep of tiny runs on each engine: python -m tests.sweeps.launchers.measured [--rounds 3] [ENGINE…]

The engines take turns; SLURM and Ray are started before and stopped after. Prints a table for docs/scaling.md: the
seconds from the command to its end, and how much of them a job takes that is not its training and evaluation.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

from cifar.base.run_folder import read_summary
from tests.conftest import QUIET, ROOT
from tests.sweeps.launchers.engines import ray_started, slurm_started

SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
ENGINES: dict[str, list[str]] = {"basic": [], "joblib": JOBLIB, "slurm": SLURM, "ray": []}


def measure(folder: Path, num_jobs: int, words: list[str]) -> tuple[float, float]:
    """Return the seconds of a sweep, and those that its runs took for training and evaluation together."""
    sweep = ["-m", *QUIET, "device.threads=1", "data.val_size=20", f"seed=range(0,{num_jobs})", "hydra.sweep.dir=s"]
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cifar", "run", *sweep, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    seconds = perf_counter() - start
    assert done.returncode == 0, done.stderr
    summaries = [read_summary(folder / "s" / str(number)) for number in range(num_jobs)]
    assert {summary["status"] for summary in summaries} == {"completed"}
    return seconds, sum(summary["train_seconds"] + summary["eval_seconds"] for summary in summaries)


def started(name: str, folder: Path, stack: ExitStack) -> list[str]:
    """Start what the engine needs until the stack is closed, and return the words that choose it."""
    (folder / name).mkdir()
    if name == "slurm":
        stack.enter_context(slurm_started(folder / name))
    if name == "ray":
        cluster = stack.enter_context(ray_started(folder / name))
        return ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"]
    return ENGINES[name]


def compare(engines: Sequence[str], num_rounds: int, num_jobs: int) -> dict[str, list[tuple[float, float]]]:
    """Let the engines take turns, and return what `measure` does for each round of each."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        words = {name: started(name, folder, stack) for name in engines}
        for number in range(num_rounds):
            for name in engines:
                (own := folder / f"{name}-{number}").mkdir()
                found[name].append(measure(own, num_jobs, words[name]))
                seconds, load = found[name][-1][0], os.getloadavg()[0]
                print(f"round {number + 1}, {name}: {seconds:.1f} s, load {load:.1f}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure the engines that the command line names, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=[*ENGINES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=24)
    options = parser.parse_args()
    found = compare(options.engines, options.rounds, options.jobs)
    print("| engine | jobs at a time | seconds, median (range) | … per job | … of which training and evaluation |")
    print("|---|---|---|---|---|")
    for name, rounds in found.items():
        totals = sorted(seconds for seconds, _ in rounds)
        total, own = median(totals), median(seconds for _, seconds in rounds)
        print(
            f"| {name} | {1 if name == 'basic' else 2} | {total:.0f} ({totals[0]:.0f}–{totals[-1]:.0f}) | "
            f"{total / options.jobs:.2f} | {own / options.jobs:.2f} |"
        )


if __name__ == "__main__":
    main()

"""Seconds until a command answers: python -m tests.measured_startup [ROUNDS]

Prints the table of docs/speed.md. The commands take turns, each in a process of its own, in a folder where one sweep of
100 runs lies; the first round warms up the files and does not count. This is for a quiet machine.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from tests.conftest import ROOT
from tests.sweep_folders import write_metrics, write_sweep

NUM_RATES, NUM_SEEDS = 4, 25


@dataclass(frozen=True)
class Wait:
    """What is waited for: that Python, given these words, prints a line with the text, or (no text) ends."""

    title: str
    words: str
    text: str | None = None

    def measure(self, folder: Path) -> float:
        """Return the seconds from the command on."""
        words = [sys.executable, "-u", *shlex.split(self.words)]
        start = perf_counter()
        process = subprocess.Popen(
            words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        found, lines = None, list[str]()
        for line in process.stdout:
            lines.append(line)
            if found is None and self.text is not None and self.text in line:
                found = perf_counter() - start
        process.wait()
        assert self.text is None or found is not None, "".join(lines)
        return found or perf_counter() - start


RUN = "-m cifar run epochs=1 batch_size=2 data.limit=2 data.test_limit=2 log_every=1 tracker=none page=false"
WAITS = [
    Wait("`import torch, hydra`", "-c 'import torch, hydra'"),
    Wait("`import torch, hydra, torch._dynamo`", "-c 'import torch, hydra, torch._dynamo'"),
    Wait("`cifar run`, from the command to its first step, decoded images kept from before", RUN, "Step ["),
    Wait("… with `data.source.cache=null`", f"{RUN} data.source.cache=null", "Step ["),
    Wait("`cifar --help`", "-m cifar --help"),
    Wait("`cifar report --help`", "-m cifar report --help"),
    Wait("`cifar run --help`", "-m cifar run --help"),
    Wait("`cifar run modle=vgg16`: the message", "-m cifar run modle=vgg16"),
    Wait("`cifar run lr=abc`: the message", "-m cifar run lr=abc"),
    Wait(f"`cifar report` on {NUM_RATES * NUM_SEEDS} runs: the answer", "-m cifar report sweep", "rank"),
    Wait("… and with its figures and its page, to the end", "-m cifar report sweep"),
]


def main() -> None:
    """Measure, and print the table."""
    num_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[str, list[float]] = {wait.title: [] for wait in WAITS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        accuracies = {
            0.001 * 2**rate: [0.5 + 0.01 * rate + 0.002 * (seed % 5 + seed % 3 * rate) for seed in range(NUM_SEEDS)]
            for rate in range(NUM_RATES)
        }
        write_sweep(folder / "sweep", accuracies)
        for summary in (folder / "sweep").glob("*/summary.json"):
            write_metrics(summary.parent, num_epochs=10)
        for number in range(num_rounds + 1):
            for wait in WAITS:
                seconds = wait.measure(folder)
                if number > 0:
                    found[wait.title].append(seconds)
    print("| | seconds, median (range) |\n|---|---|")
    for title, all_seconds in found.items():
        print(f"| {title} | {median(all_seconds):.2f} ({min(all_seconds):.2f}–{max(all_seconds):.2f}) |")
    print(f"Load of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

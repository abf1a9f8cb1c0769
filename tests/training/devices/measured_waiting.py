"""What it costs when torch's threads wait for each other, alone and beside busy programs; the table of docs/speed.md.

python -m tests.training.devices.measured_waiting --busy 4 --rounds 5
"""

import argparse
import os
import statistics
import subprocess
import sys

SETTINGS = {"300,000 turns, the default": "300000", "3,000 turns, as in cifar": "3000"}
BUSY = [sys.executable, "-c", "while True: pass"]
LOOP = """
import time, torch
torch.set_num_threads(2)
blocks = [torch.nn.Sequential(torch.nn.Conv2d(inner, 64, 3, padding=1), torch.nn.BatchNorm2d(64), torch.nn.ReLU())
          for inner in [3] + 7 * [64]]
model, inputs = torch.nn.Sequential(*blocks).to(memory_format=torch.channels_last), torch.randn(50, 3, 16, 16)
model(inputs).sum().backward()
begin, steps = time.perf_counter(), 0
while time.perf_counter() - begin < 6:
    model(inputs).sum().backward()
    steps += 1
print(steps / (time.perf_counter() - begin))
"""


def steps_per_second(turns: str) -> float:
    """Return how many steps a second a process of its own takes."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    }
    command = [sys.executable, "-c", LOOP]
    found = subprocess.run(
        command, env=environment | {"GOMP_SPINCOUNT": turns}, check=True, capture_output=True, text=True
    )
    return float(found.stdout)


def main() -> None:
    """Measure all settings in turn, so many rounds, alone and beside the busy processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for number in (0, args.busy):
        busy = [subprocess.Popen(BUSY) for _ in range(number)]
        try:
            rounds = [{name: steps_per_second(turns) for name, turns in SETTINGS.items()} for _ in range(args.rounds)]
        finally:
            for process in busy:
                process.kill()
        for name in SETTINGS:
            found = [each[name] for each in rounds]
            print(f"{number} busy, {name}: {statistics.median(found):.2f} steps/s ({min(found):.2f}-{max(found):.2f})")


if __name__ == "__main__":
    main()

"""Runs of run.py that get a signal at random moments until they are done: python -m tests.random_faults FOLDER KILL 50.

Torch is imported once and every process is forked from there, so that a run takes part of a second. Prints one line of
JSON: how many signals were sent and what they hit. The folder holds the finished runs and one that was left alone.
"""

import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path

import torch

from cifar import experiment  # noqa: F401 - imported before the forks

torch.optim.Adam([torch.zeros(1)])  # imports more

ROOT = Path(__file__).parent.parent
OVERRIDES = [
    "model._target_=tests.tiny_model.tiny", "data=random", "data.source.num_train=80", "data.source.num_test=30",
    "data.val_size=20", "batch_size=10", "eval_batch_size=20", "device=cpu", "device.threads=1", "tracker=none",
    "epochs=30", "log_every=4", "schedule=cosine", "checkpoint.every_minutes=0.0005", "checkpoint.every_epochs=2",
]  # fmt: skip


def start(folder: Path) -> int:
    """Fork a process that runs run.py in `folder`, resuming what is there; return its id."""
    process = os.fork()
    if process:
        return process
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [str(ROOT / "run.py"), *OVERRIDES, "resume=auto", f"hydra.run.dir={folder}"]
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:  # before run.py could take over the signal
        code = 130
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Send signals until there were as many as asked for, then let the last run end."""
    base, name, wanted = Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3])
    signum, numbers = signal.Signals[f"SIG{name}"], random.Random(sys.argv[4] if len(sys.argv) > 4 else name)
    begin = time.perf_counter()
    _, status = os.waitpid(start(base / "uncut"), 0)
    assert status == 0, (base / "uncut.log").read_text()
    longest = time.perf_counter() - begin
    counts = {"signals": 0, "runs": 0, "torn_writes": 0, "before_first_checkpoint": 0, "late": 0}
    while counts["signals"] < wanted:
        folder = base / f"run{counts['runs']}"
        while True:
            process = start(folder)
            deadline = time.perf_counter() + numbers.uniform(0, longest)
            done, status = 0, 0
            while not done and (counts["signals"] >= wanted or time.perf_counter() < deadline):
                done, status = os.waitpid(process, os.WNOHANG)
                time.sleep(0.001)
            if not done:
                os.kill(process, signum)
                _, status = os.waitpid(process, 0)
                counts["signals"] += 1
                counts["torn_writes"] += bool([*folder.glob(".*.tmp")])
                counts["before_first_checkpoint"] += not [*folder.glob("checkpoint*.pt")]
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
                counts["late"] += not done  # the signal came when all was over
                break
            expected = -signum if signum == signal.SIGKILL else 128 + signum
            code = os.waitstatus_to_exitcode(status)
            assert code in (expected, -signum), (code, folder.with_suffix(".log").read_text()[-2000:])
        counts["runs"] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main()

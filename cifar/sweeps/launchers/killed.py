"""What a job's batch script calls when the job's process was killed: python -m cifar.sweeps.launchers.killed SWEEP TIME

TIME is when it had started, in seconds since 1970 by this machine's clock. A process that is killed each time before it
saves would be started for ever: a second time it is left alone.
"""

import os
import sys
from pathlib import Path
from time import time

from cifar.sweeps.launchers import queue
from cifar.sweeps.launchers.elsewhere import has_saved, run_folder


def may_go_on(sweep: Path, job_id: str, seconds: float, num_restarts: int) -> bool:
    """Return whether the job has got anywhere in the seconds since it started, or had only one start."""
    numbers = {text: number for number, text in queue.read_submitted(sweep).items()}
    got_on = job_id in numbers and has_saved(run_folder(sweep, numbers[job_id]), seconds)
    return got_on or num_restarts == 0


def main() -> None:
    """Have SLURM start the job again in which this runs, if that makes sense."""
    sweep, started_at, job_id = Path(sys.argv[1]), float(sys.argv[2]), queue.own_id()
    if not may_go_on(sweep, job_id, time() - started_at, int(os.environ.get("SLURM_RESTART_COUNT", "0"))):
        print("Killed again before anything was saved, so it is not started again.", file=sys.stderr)
    elif (reason := queue.requeue(job_id)) is not None:
        print(f"Killed, and SLURM does not start it again: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()

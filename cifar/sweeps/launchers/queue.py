"""What SLURM knows of a sweep's jobs, asked of squeue, which is open to every user, and what was submitted to it.

`slurm.json` in a sweep's folder has every job's id, by the jobs' own numbers. A folder may come from a stranger: of the
file only what looks like an id is taken.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from cifar.base.run_folder import write_json

SUBMITTED = "slurm.json"
ID = re.compile(r"\d+(_\d+)?")
TIMEOUT_SECONDS = 60


def read_submitted(folder: Path) -> dict[int, str]:
    """Return the ids of the jobs that were submitted from the folder, the latest one for each number."""
    try:
        jobs = json.loads((folder / SUBMITTED).read_text())["jobs"]
        return {int(number): text for number, text in jobs.items() if ID.fullmatch(text)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def write_submitted(folder: Path, jobs: dict[int, str]) -> None:
    """Add jobs to those that were submitted from the folder before."""
    everything = {**read_submitted(folder), **jobs}
    write_json(folder / SUBMITTED, {"jobs": {str(number): everything[number] for number in sorted(everything)}})


def states(ids: Iterable[str]) -> dict[str, str] | None:
    """Return the states of those of the jobs that wait, run or come to an end; None: SLURM does not answer."""
    arrays = sorted({text.partition("_")[0] for text in ids})
    if not arrays or shutil.which("squeue") is None:
        return {} if not arrays else None
    command = ["squeue", "--noheader", "--array", f"--jobs={','.join(arrays)}", "--format=%i %T"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    if result.returncode and "Invalid job id" not in result.stderr:  # one that is over is forgotten after some minutes
        return None
    pairs = [line.split(maxsplit=1) for line in result.stdout.splitlines() if " " in line.strip()]
    return {text: state.strip() for text, state in pairs}


def alive(submitted: dict[int, str]) -> dict[int, str] | None:
    """Return those of the submitted jobs that wait or run; None: SLURM is here and does not answer."""
    if not submitted or shutil.which("squeue") is None:
        return {}
    known = states(submitted.values())
    return None if known is None else {number: text for number, text in submitted.items() if text in known}


def requeue(job_id: str) -> str | None:
    """Have SLURM start this job again; return why it does not."""
    try:
        result = subprocess.run(
            ["scontrol", "requeue", job_id], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return " ".join(result.stderr.split()) if result.returncode else None


def own_id() -> str:
    """Return the id of the SLURM job in which this process runs."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


def short(ids: Iterable[str]) -> list[str]:
    """Return the ids without the jobs of arrays, as squeue and scancel take them."""
    return sorted({text.partition("_")[0] for text in ids}, key=int)

"""How far a sweep is, whoever runs its jobs: in the folder's own words, and in SLURM's where jobs were submitted."""

from collections import Counter
from pathlib import Path

from cifar.base.locks import is_locked
from cifar.base.run_folder import read_summary
from cifar.sweeps.launchers import queue
from cifar.sweeps.plan import OVER, find_runs, read_plan

UNKNOWN = "unknown: squeue does not answer"
ORDER = (*OVER, "failed", "running", "queued", UNKNOWN, "interrupted", "not begun")


def job_states(folder: Path) -> dict[int, str]:
    """Return what has become of each job in a sweep's plan, by its number; none without a plan."""
    plan = read_plan(folder)
    if plan is None:
        return {}
    states = dict.fromkeys(plan.numbers, "not begun")
    for run in find_runs(folder):
        summary = read_summary(run)
        number = summary.get("job", int(run.name) if run.name.isdecimal() else None)
        if number in states:
            states[number] = state_of(run, str(summary.get("status")))
    submitted = queue.read_submitted(folder)
    alive = queue.alive(submitted)
    for number in submitted if alive is None else alive:
        if states.get(number) in ("not begun", "interrupted", "failed"):
            states[number] = UNKNOWN if alive is None else "queued"
    return states


def state_of(run: Path, status: str) -> str:
    """Return the state of a run that has begun, from the status in its summary."""
    if status in (*OVER, "failed", "interrupted"):
        return status
    return "running" if is_locked(run) else "interrupted"


def is_under_way(folder: Path) -> bool:
    """Return whether jobs of the sweep are queued or running, or may be."""
    return not {"queued", "running", UNKNOWN}.isdisjoint(job_states(folder).values())


def state_text(folder: Path) -> str | None:
    """Return how far a sweep is that is not over yet, such as "24 jobs: 20 completed, 4 running"; None: it is over."""
    states = job_states(folder)
    counts = Counter(states.values())
    if not states or all(state in OVER for state in counts):
        return None
    return f"{len(states):,} jobs: {', '.join(f'{counts[state]:,} {state}' for state in ORDER if counts[state])}"

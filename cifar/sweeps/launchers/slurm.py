"""A sweep's jobs on SLURM: submitted through submitit as one array, watched with squeue, started again when cut.

A job that is told to end (preempted, requeued, near its time limit) saves first. Unless SLURM has ended or requeued it
by then, it asks to be started again. It goes on in its own folder, as every job of a sweep does.
"""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

import submitit
from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import FailedJobError, FailedSubmissionError

from cifar.base import limits, signals
from cifar.base.errors import UserError
from cifar.base.run_folder import read_summary
from cifar.sweeps.continuing import again
from cifar.sweeps.launchers import queue
from cifar.sweeps.launchers.elsewhere import Elsewhere, has_saved, number_of, outcome, run_folder
from cifar.sweeps.plan import num_over, progress, read_plan, result_text, statuses

log = logging.getLogger(__name__)

MINUTES = limits.whole_number(1, 10_000_000, " of minutes")
COUNT = limits.whole_number(1, 1_000_000)
NAME = limits.Limit("a name", lambda value: isinstance(value, str | int) and str(value).isprintable() and value != "")
COMMANDS = limits.Limit(
    "a list of shell commands, as in [module load cuda]",
    lambda value: isinstance(value, list) and all(isinstance(command, str) for command in value),
)
LIMITS = {
    "wait": limits.FLAG,
    "requeue": limits.FLAG,
    "cpus_per_task": COUNT.or_null(),
    "gpus_per_node": limits.whole_number(0, 1_000_000).or_null(),
    "mem_gb": limits.number("a positive number of GB", lambda value: value > 0).or_null(),
    "timeout_min": MINUTES,
    "signal_delay_s": limits.whole_number(1, 1_000_000, " of seconds"),
    "array_parallelism": COUNT,
    **{name: NAME.or_null() for name in ("partition", "account", "qos", "constraint", "name")},
    "setup": COMMANDS.or_null(),
    "additional_parameters": limits.Limit(
        "options of sbatch with their values, as in {mail-type: END}", lambda value: isinstance(value, dict)
    ).or_null(),
}
LOOK_SECONDS = (2, 30)  # between two questions to squeue: at first, and after a while
LOGS = ".submitit"


def refuse_impossible_options(options: dict[str, Any]) -> None:
    """Raise `UserError` for the first option that is unknown or has an impossible value."""
    limits.refuse_impossible("hydra.launcher", options, LIMITS)


@dataclass
class Job:
    """What SLURM runs."""

    elsewhere: Elsewhere

    def __call__(self, overrides: list[str]) -> None:
        """Run the job with these overrides; the exit code tells SLURM how it ended."""
        started_at, job_id = monotonic(), queue.own_id()
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
            os.environ["OMP_NUM_THREADS"] = cpus  # torch is imported later
        try:
            result = self.elsewhere.run(overrides, job_id)
        except signals.Interrupted as interruption:
            run, seconds = run_folder(self.elsewhere.folder, number_of(overrides)), monotonic() - started_at
            start_again(run, number_of(overrides), job_id, seconds, int(interruption.args[0]))
            sys.exit(128 + int(interruption.args[0]))
        if result.status == JobStatus.FAILED:
            sys.exit(1)


def start_again(run: Path, number: int, job_id: str, seconds: float, signum: int) -> None:
    """Ask SLURM to start again the job that was interrupted so long after its start, unless SLURM does so itself."""
    known = queue.states([job_id])
    state = (known or {}).get(job_id)
    if known is None and signum == signals.NEAR_LIMIT:
        state = "RUNNING"  # squeue does not answer, and near its limit a job has no other that starts it again
    if state != "RUNNING":
        log.info(f"Job {number} is {state or 'gone'} for SLURM, which says whether it starts again.")
    elif signum == signals.NEAR_LIMIT and not has_saved(run, seconds):
        log.error(
            f"Job {number} came to no step before its time limit, so it is not started again: "
            "hydra.launcher.timeout_min is too short, or signal_delay_s too long."
        )
    elif (reason := queue.requeue(job_id)) is not None:
        log.error(f"Job {number} is saved, but SLURM does not start it again: {reason}")
    else:
        log.info(f"Job {number} is saved, and SLURM starts it again.")


def launch(elsewhere: Elsewhere, options: dict[str, Any], job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Submit the jobs that are not queued or running yet, and wait for all of them if `wait` says so.

    Jobs that are not waited for have the status UNKNOWN. Raises `UserError` if SLURM takes no jobs, or does not say
    which of those that were submitted before still wait or run.
    """
    folder = elsewhere.folder
    jobs = {number_of(words): [*words] for words in job_overrides}
    alive = queue.alive(queue.read_submitted(folder))
    if alive is None:
        raise UserError(
            "squeue does not answer, so it is not known which jobs still wait or run. No more are submitted. "
            f"Try again later: {again(folder)}"
        )
    before = {number: text for number, text in alive.items() if number in jobs}
    if before:
        names = " ".join(queue.short(before.values()))
        log.info(f"{len(before)} of them are queued or running already, as SLURM's {names}")
    fresh = {number: words for number, words in jobs.items() if number not in before}
    ids = {**before, **(submit(elsewhere, options, fresh) if fresh else {})}
    if not options["wait"]:
        log.info(f"Nobody waits for them. {how_to_look(folder, ids, options['wait'])}")
        return [JobReturn(status=JobStatus.UNKNOWN) for _ in jobs]
    try:
        wait(folder, ids)
    except signals.Interrupted as error:
        error.__dict__["way_on"] = f"The jobs go on without this terminal. {how_to_look(folder, ids, options['wait'])}"
        raise
    return [outcome(folder, number, f"SLURM's output: {folder / LOGS / ids[number]}") for number in jobs]


def how_to_look(folder: Path, ids: dict[int, str], waits: bool) -> str:
    """Return the commands that show how far the jobs are, that wait for them, and that stop them.

    `waits` is what `cifar resume` does of itself, as the sweep was begun.
    """
    shown, names = shlex.quote(os.path.relpath(folder)), queue.short(ids.values())
    return (
        f"How far they are: cifar report {shown}, squeue --jobs={','.join(names)}. "
        f"Wait for them: {again(folder)}{'' if waits else ' hydra.launcher.wait=true'}. "
        f"Stop them: scancel {' '.join(names)}"
    )


def submit(elsewhere: Elsewhere, options: dict[str, Any], jobs: dict[int, list[str]]) -> dict[int, str]:
    """Submit the jobs as one array, write their ids down and return them by the jobs' numbers."""
    folder = elsewhere.folder
    try:
        executor = submitit.AutoExecutor(folder / LOGS / "%j", cluster="slurm")
        executor.update_parameters(**parameters(options, folder))
        submitted = executor.map_array(Job(elsewhere.carried()), [*jobs.values()])
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"SLURM does not take the jobs: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        if "srun" not in str(error):
            raise
        raise UserError(
            "hydra/launcher=slurm is not possible here: there are no commands of SLURM (sbatch, srun) on this machine. "
            "Type the command on a login node of the cluster, or use hydra/launcher=joblib."
        ) from None
    ids = dict(zip(jobs, [job.job_id for job in submitted], strict=True))
    queue.write_submitted(folder, ids)
    noun = "job" if len(ids) == 1 else "jobs"
    names, logs = " ".join(queue.short(ids.values())), os.path.relpath(folder / LOGS)
    log.info(f"Submitted {len(ids)} {noun} as SLURM's {names}; their output goes to {logs}")
    return ids


def parameters(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what submitit's executor takes, from the launcher's options.

    A process that was killed alone (exit code 137) is no end to SLURM, so the batch script looks whether to go on.
    """
    common = ("name", "timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
    own = (*common, "wait", "requeue", "additional_parameters", "setup")
    look = shlex.join([sys.executable, "-m", "cifar.sweeps.launchers.killed", str(folder)])
    cpus = options["cpus_per_task"]
    requeue = {"requeue": True} if options["requeue"] else {"no-requeue": True}
    return {
        **{key: options[key] for key in common},
        **{f"slurm_{key}": value for key, value in options.items() if key not in own},
        "slurm_additional_parameters": {**requeue, **(options["additional_parameters"] or {})},
        "slurm_setup": ["started=$(date +%s)", *(options["setup"] or [])],
        "slurm_srun_args": [f"--cpus-per-task={cpus}"] if cpus else [],  # since SLURM 22.05 srun does not ask sbatch
        "slurm_teardown": ["code=$?", f'[ $code != 137 ] || {look} "$started"', "exit $code"],
    }


def wait(folder: Path, ids: dict[int, str]) -> None:
    """Wait until SLURM has no more of the jobs, and say of each how it ended."""
    begun_at, left, plan, was_told = monotonic(), dict(ids), read_plan(folder), False
    while left:
        first, last = LOOK_SECONDS
        sleep(min(last, max(first, (monotonic() - begun_at) / 10)))
        known = queue.states(left.values())
        if known is None:
            if not was_told:
                log.warning("squeue does not answer: waiting until it does.")
            was_told = True
            continue
        for number in [number for number, text in left.items() if text not in known]:
            del left[number]
            summary = read_summary(run_folder(folder, number))
            how = result_text(summary) or summary.get("status", "nothing is known of it")
            log.info(f"Job {number}{f' ({plan.label(number)})' if plan else ''}: {how}")
            if plan:
                log.info(progress(len(plan.jobs), statuses(folder), time() - plan.started_at, plan.num_done_before))
    if plan and (num_left := len(plan.jobs) - num_over(folder)):
        log.info(f"{num_left} job{' has' if num_left == 1 else 's have'} no result.")

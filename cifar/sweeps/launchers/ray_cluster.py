"""A sweep's jobs on a Ray cluster, each in a process of its own on whatever node has room for it.

A job whose process or node is lost has failed; `cifar resume` goes on with it. On Ctrl-C all running jobs save first.
"""

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from time import monotonic, sleep, time
from typing import Any

import ray
from hydra.core.utils import JobReturn, JobStatus
from ray import cloudpickle
from ray._private.services import get_ray_address_from_environment
from ray.exceptions import RayError, RayTaskError

from cifar.base import limits, signals
from cifar.base.errors import StoppedError, UserError
from cifar.base.locks import is_locked
from cifar.base.run_folder import read_summary
from cifar.sweeps.launchers.elsewhere import Elsewhere, number_of, outcome, run_folder
from cifar.sweeps.plan import Plan, progress, read_plan, result_text, statuses

log = logging.getLogger(__name__)

LIMITS = {
    "address": limits.Limit("auto, local or HOST:PORT", lambda value: isinstance(value, str) and value != ""),
    "num_cpus": limits.number("a positive number of cores", lambda value: value > 0),
    "num_gpus": limits.number("a number of GPUs, 0 or more", lambda value: value >= 0),
    "memory_gb": limits.number("a positive number of GB", lambda value: value > 0).or_null(),
}
# How the names begin of what jobs have from the command's environment.
CARRIED = ("CIFAR", "WANDB_", "HYDRA_", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
CONNECT_SECONDS = 10
LOOK_SECONDS = 0.2
SAVE_SECONDS = 120  # that running jobs have to end a step and save


def refuse_impossible_options(options: dict[str, Any]) -> None:
    """Raise `UserError` for the first option with an impossible value."""
    limits.refuse_impossible("hydra.launcher", options, LIMITS)


def launch(elsewhere: Elsewhere, options: dict[str, Any], job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Run the jobs on the cluster, as many at once as it has room for, and return how each ended."""
    connect(options["address"])
    try:
        threads = max(1, int(options["num_cpus"]))
        environment = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
        given = ray.put(cloudpickle.dumps(elsewhere.carried()))  # type: ignore[no-untyped-call]
        place = (elsewhere.cwd, [*sys.path], environment | {"OMP_NUM_THREADS": str(threads)})
        memory = options["memory_gb"] and int(options["memory_gb"] * 2**30)
        resources = {"num_cpus": options["num_cpus"], "num_gpus": options["num_gpus"], "memory": memory}
        warn_if_there_is_no_room({"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": memory or 0})
        work = ray.remote(**resources, max_retries=0)(run_on_node)
        running = {work.remote(given, [*words], place): number_of(words) for words in job_overrides}
        numbers = [*running.values()]
        ended = wait(elsewhere, running)
    finally:
        ray.shutdown()
    return [ended[number] for number in numbers]


def connect(address: str) -> None:
    """Connect to the cluster; raise `UserError` if there is none. What Ray does to signals is undone."""
    handlers = {signum: signal.getsignal(signum) for signum in signals.TAKEN}
    try:
        refuse_silence(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"hydra.launcher.address={address}: no Ray cluster answers there. Start one with ray start --head, or let "
            f"the sweep have its own with hydra.launcher.address=local. Ray says: {' '.join(str(error).split())}"
        ) from error
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def warn_if_there_is_no_room(asked: dict[str, float]) -> None:
    """Say that jobs may wait for ever if no node has what one of them asks for; another node may still join."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if not any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
        log.warning(
            f"No node of the cluster has what hydra.launcher asks for each job: {asked['CPU']:g} cores, "
            f"{asked['GPU']:g} GPUs, {asked['memory'] / 2**30:g} GB. "
            "The jobs wait until one joins; Ctrl-C ends the sweep."
        )


def refuse_silence(address: str) -> None:
    """Raise `OSError` if nobody listens where the cluster should be: Ray itself would try for minutes."""
    known = get_ray_address_from_environment(address, None) or ""
    host, separator, port = known.rpartition(":")
    if separator and port.isdecimal() and "://" not in known:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def run_on_node(given: bytes, overrides: list[str], place: tuple[str, list[str], dict[str, str]]) -> str | None:
    """Run the job with these overrides where Ray has put it; return what is wrong if it was stopped."""
    cwd, path, environment = place
    os.environ.update(environment)
    sys.path += [entry for entry in path if entry not in sys.path]
    if os.path.isdir(cwd):
        os.chdir(cwd)
    elsewhere: Elsewhere = cloudpickle.loads(given)
    try:
        elsewhere.run(overrides, ray.get_runtime_context().get_task_id() or "")
    except signals.Interrupted:
        return "interrupted."
    return None


def wait(elsewhere: Elsewhere, running: dict[Any, int]) -> dict[int, JobReturn]:
    """Wait for the jobs, say of each how it ended, and return that by their numbers; a signal lets them save first."""
    left, ended, plan = dict(running), dict[int, JobReturn](), read_plan(elsewhere.folder)
    try:
        while left:
            ready, _ = ray.wait([*left], timeout=1)
            for reference in ready:
                number = left.pop(reference)
                ended[number] = how_it_ended(elsewhere, reference, number)
                tell(elsewhere, number, ended[number], plan)
    except KeyboardInterrupt:  # Ray makes this of what a handler raises
        let_them_save(elsewhere, left)
        raise
    return ended


def let_them_save(elsewhere: Elsewhere, running: dict[Any, int]) -> None:
    """Interrupt the jobs and wait until those that have begun are saved; Ray itself does not wait for that."""
    for reference in running:
        ray.cancel(reference)
    folders = [run_folder(elsewhere.folder, number) for number in running.values()]
    deadline = monotonic() + SAVE_SECONDS
    while any(folder.exists() and is_locked(folder) for folder in folders) and monotonic() < deadline:
        sleep(LOOK_SECONDS)


def how_it_ended(elsewhere: Elsewhere, reference: Any, number: int) -> JobReturn:
    """Return how a job ended; one whose process or node is gone has failed."""
    try:
        stopped = ray.get(reference)
    except RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        return failed(UserError(f"Job {number} could not begin on its node: {reason}"))
    except RayError as error:
        lost = f"Job {number}: its process or its node is lost ({type(error).__name__})"
        return failed(UserError(f"{lost}. What it had saved is there."))
    if stopped is not None:
        return failed(StoppedError(f"Job {number}: {stopped}"))
    return outcome(elsewhere.folder, number, "Ray knows of no error.")


def failed(error: Exception) -> JobReturn:
    """Return the end of a job that failed."""
    return JobReturn(status=JobStatus.FAILED, _return_value=error)


def tell(elsewhere: Elsewhere, number: int, end: JobReturn, plan: Plan | None) -> None:
    """Say how a job ended and how far the sweep is."""
    folder = elsewhere.folder
    if end.status == JobStatus.FAILED:
        log.error(str(end._return_value))
    else:
        label = f" ({plan.label(number)})" if plan else ""
        log.info(f"Job {number}{label}: {result_text(read_summary(run_folder(folder, number)))}")
    if plan:
        log.info(progress(len(plan.jobs), statuses(folder), time() - plan.started_at, plan.num_done_before))

"""Run the jobs of `cifar run -m …`: a sweeper for Hydra that takes them from a plan, and what it says meanwhile.

It stands in for Hydra's basic one, whatever configuration the command is begun with. Nothing here imports torch.
"""

import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, time
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callbacks import LogJobReturnCallback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cifar.base import signals
from cifar.base.errors import StoppedError, UserError, continued_by
from cifar.base.locks import locked
from cifar.base.paths import shown
from cifar.base.run_folder import read_summary, refuse_used_folder, write_atomically
from cifar.commands.app.jobs import job_label, report_on
from cifar.commands.messages.explain import explain
from cifar.experiment.config import config_hash, resolve
from cifar.experiment.restore import finished
from cifar.experiment.typed.command_line import quote, resume_command
from cifar.sweeps.continuing import again, begun_by, is_auto, typed_again
from cifar.sweeps.launchers.elsewhere import run_folder
from cifar.sweeps.plan import (
    OVER,
    OWN_NUMBER,
    PLAN,
    Plan,
    find_runs,
    make_plan,
    num_over,
    progress,
    read_plan,
    result_text,
    statuses,
    time_text,
    write_plan,
)
from cifar.sweeps.planning import base_changes, base_of, check_jobs, take_up
from cifar.sweeps.state import is_under_way
from hydra_plugins.cifar_framework.launchers import RayLauncher, SlurmLauncher

log = logging.getLogger(__name__)

NAME = "hydra_plugins.cifar.PlannedSweeper"  # Hydra takes sweepers from this namespace only
NUMBER = "${hydra.job.num}"


@dataclass
class SweeperConf:
    """What `hydra.sweeper` takes."""

    _target_: str = NAME
    max_batch_size: int | None = None  # so many jobs are handed to the launcher at once; null: all
    params: dict[str, str] | None = None  # swept keys; words of the command replace them
    same_base: bool = False  # refuse to go on when the configuration is not what it was
    number: int | None = None  # every job is given its own


class PlannedSweeper(Sweeper):
    """Run the jobs of a plan that is made once; a sweep that goes on takes up the one in its folder."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        same_base: bool = False,
        number: int | None = None,
    ) -> None:
        self.max_batch_size, self.params, self.same_base = max_batch_size, params or {}, same_base

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Have the jobs watched, and the launcher made."""
        hydra_context.callbacks.callbacks.append(Jobs())
        self.config, self.hydra_context = config, hydra_context
        HydraConfig.instance().set_config(config)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Plan the jobs, run them in the sweep's folder, and report on them; raise what ended the first that failed."""
        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir).absolute()
        with locked(folder), continued_by(lambda: again(folder)):
            plan = self.plan(folder, [word for word in arguments if not re.match(r"\+{0,2}resume=", word)])
            multirun_yaml = OmegaConf.to_yaml(self.config).encode()
            write_atomically(folder / "multirun.yaml", lambda file: file.write(multirun_yaml))
            write_plan(folder, plan)
            results: list[JobReturn] = []
            try:
                results = self.launch(plan)
            finally:
                is_unknown = any(result.status == JobStatus.UNKNOWN for result in results)
                is_left = is_unknown or (not results and is_under_way(folder))
                if not signals.has_come() and not is_left and find_runs(folder):
                    report_on(folder, self.config.tracker)
            for result in results:
                if result.status == JobStatus.FAILED:
                    raise result._return_value
        if num_over(folder) == plan.num_done_before and not is_left:
            log.info(progress(len(plan.jobs), statuses(folder), 0, plan.num_done_before))
        return results

    def plan(self, folder: Path, words: list[str]) -> Plan:
        """Return the jobs, after a look at what can be known of them; raise `UserError` if they may not begin."""
        assert self.config is not None
        assert self.hydra_context is not None
        is_resumed = is_auto(self.config)
        if not is_resumed and ((folder / PLAN).exists() or (folder / "multirun.yaml").exists()):
            raise UserError(
                f"{folder} already holds a sweep. Continue it with {again(folder)}, or take another hydra.sweep.dir."
            )
        params = [f"{key}={value}" for key, value in self.params.items()]
        drawn = make_plan([*params, *words], num_over(folder), self.hydra_context.config_loader)
        if not drawn.jobs:
            raise UserError(f"The sweep has no jobs: the values of {' or '.join(drawn.swept)} are none.")
        begun = begun_by(self.config, words, base_of(self.config))
        drawn = replace(drawn, begun=begun)
        if not is_resumed:
            for number in drawn.numbers:
                refuse_used_folder(folder / str(number), resume_command(folder / str(number)))
        stored = read_plan(folder)
        if self.same_base and stored and (changes := base_changes(stored, drawn)):
            raise UserError(
                f"The configuration files are not what they were when {os.path.relpath(folder)} was begun: "
                f"{', '.join(changes)}. Put them back, or run the sweep with them as they are now: "
                f"{typed_again(begun, folder)}"
            )
        plan = take_up(drawn, stored, folder, lambda job: config_hash(resolve(self.compose(job))))
        keys = f" over {', '.join(plan.swept)}" if plan.swept else ""
        noun = "job" if len(plan.jobs) == 1 else "jobs"
        log.info(f"{len(plan.jobs):,} {noun}{keys} in {os.path.relpath(folder)}")
        check_jobs(plan, folder, self.compose)
        return plan

    def compose(self, job: Sequence[str]) -> DictConfig:
        """Return the configuration of the job with these overrides."""
        assert self.hydra_context is not None
        assert self.config is not None
        config: DictConfig = self.hydra_context.config_loader.load_sweep_config(self.config, [*job])
        with open_dict(config):
            del config["hydra"]
        return config

    def launch(self, plan: Plan) -> list[JobReturn]:
        """Hand the jobs that have no result yet to the launcher, each with its folder.

        The configuration of each is composed when it starts.
        """
        assert self.config is not None
        assert self.launcher is not None
        node = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        assert isinstance(node, dict)
        subdir = quote(str(node["subdir"])).replace("\\${", "${")  # the other interpolations in it stay what they are
        jobs = [
            [*job, f"{OWN_NUMBER}={number}", f"hydra.sweep.subdir={subdir.replace(NUMBER, str(number))}"]
            for number, job in zip(plan.numbers, plan.jobs, strict=True)
            if not self.is_done(number, job)
        ]
        results: list[JobReturn] = []
        size = self.max_batch_size or max(1, len(jobs))
        for start in range(0, len(jobs), size):
            results += self.launcher.launch(jobs[start : start + size], initial_job_idx=start)
        return results

    def is_done(self, number: int, job: list[str]) -> bool:
        """Return whether the job has a result of its very configuration, and say so."""
        assert self.config is not None
        run = run_folder(Path(self.config.hydra.sweep.dir).absolute(), number)
        if read_summary(run).get("status") not in ("completed", "diverged"):
            return False
        summary = None
        with suppress(OmegaConfBaseException):  # what only a job that runs can know
            summary = finished(run, config_hash(resolve(self.compose(job))))
        if summary is not None:
            log.info(f"{shown(run)} is done already: {result_text(summary)}")
        return summary is not None


class Jobs(LogJobReturnCallback):
    """Say of every job of a sweep when it starts and how it ends.

    A job that failed is logged the moment it fails, a mistake of the user without a traceback.
    """

    started_at = 0.0
    before: dict[str, Any] | None = None

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Give the job, which the launcher counts anew at every start, its own number, and say that it starts."""
        number = config.hydra.sweeper.number
        for node in (config.hydra.job, HydraConfig.instance().cfg.hydra.job):  # type: ignore[union-attr]
            with read_write(node):
                node.num = number
        self.started_at, self.before = perf_counter(), read_summary(Path(config.hydra.runtime.output_dir))
        self.log.info(f"Job {number} starts: {job_label(config)}")
        if signals.is_worker():
            name_job(f"Job {number}: ")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say how the job ended and how far the sweep is."""
        name_job("")
        title, error = f"Job {config.hydra.job.num}", job_return._return_value
        summary = read_summary(Path(config.hydra.runtime.output_dir))
        if job_return.status != JobStatus.FAILED:
            if summary == self.before:  # it was done already
                return
            seconds = time_text(perf_counter() - self.started_at)
            self.log.info(f"{title} ({job_label(config)}): {result_text(summary)}, {seconds}")
        elif isinstance(error, StoppedError):
            self.log.info(f"{title}: {error}")
        elif (message := explain(error)) is not None:
            self.log.error(f"{title} failed: {message}")
        else:
            super().on_job_end(config=config, job_return=job_return, **kwargs)
        folder = Path(config.hydra.sweep.dir)
        if plan := read_plan(folder):
            done = statuses(folder)
            self.log.info(progress(len(plan.jobs), done, time() - plan.started_at, plan.num_done_before))
            if sum(status in (*OVER, "failed") for status in done) == len(plan.jobs):
                report_if_left_alone(folder, config.tracker)


def report_if_left_alone(folder: Path, tracker: DictConfig) -> None:
    """Report on the sweep unless a process is at work that will: the one that waits for the jobs, or another job."""
    with suppress(UserError), locked(folder):
        report_on(folder, tracker)


def name_job(prefix: str) -> None:
    """Begin the lines on the console with the prefix: jobs side by side share it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
            handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))


def register() -> None:
    """Let Hydra use this sweeper where it would use its basic one, and know our launchers.

    It finds these by itself only in a folder called hydra_plugins on Python's path, which an editable install has not.
    """
    Plugins.instance().class_name_to_class[NAME] = PlannedSweeper
    for launcher in (SlurmLauncher, RayLauncher):
        Plugins.instance().register(launcher)
    ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=SweeperConf, provider="cifar")

"""The jobs of a Hydra command: a single run, or a sweep's, with the lines on the console and the report at its end.

Nothing here imports torch before the configuration is known to be good.
"""

import logging
import os
import re
import shlex
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, time
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callbacks import LogJobReturnCallback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar import signals, streams
from cifar.command_line import resume_command
from cifar.config import check, config_hash, resolve
from cifar.errors import DivergedError, StoppedError, UserError, describe_end
from cifar.resume import AUTO, finished, restore, restore_or_begin_anew, result_of, set_newer_aside
from cifar.run_folder import holds_run, locked, read_summary, refuse_used_folder, score, write_json
from cifar.sweep import find_runs, make_plan, num_over, progress, read_plan, statuses, time_text, write_plan
from cifar.trust import config_folders

log = logging.getLogger(__name__)

sweep_lock = ExitStack()
way_on = ""  # the command that continues what a signal stops
_sweep: DictConfig | None = None  # the configuration of the sweep that runs, without its swept values


class RefusedError(BaseException):
    """A sweep that may not begin; no `Exception`, because Hydra goes on after those of its callbacks."""


def job(cfg: DictConfig) -> float:
    """Run one job of a Hydra command in the folder that Hydra made for it."""
    global way_on
    hydra = HydraConfig.get()
    folder, is_sweep = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    streams.secure()
    signals.install()  # this may be a process of the launcher's
    if signals.has_come():
        raise StoppedError("not started, because the sweep is stopped.")
    logging.raiseExceptions = False  # a full disk is reported once, not by every line of run.log
    with locked(folder):
        try:
            result = work(cfg, folder, is_sweep)
        except DivergedError as error:
            if not is_sweep:
                raise
            log.error(f"Job {hydra.job.num}: {error}")
            result = score(read_summary(folder))
        except signals.Interrupted:
            if signals.is_worker():  # the launcher would kill the other workers at once
                raise StoppedError("interrupted.") from None
            if not is_sweep and (folder / "checkpoint.pt").exists():
                way_on = f"Continue with: {resume_command(folder)}"
            raise
    if not signals.is_worker():
        signals.check()
    return result


def work(cfg: DictConfig, folder: Path, is_sweep: bool) -> float:
    """Begin or resume the run of a job, or return the result that it already has."""
    hydra = HydraConfig.get()
    is_new = not holds_run(folder)
    if cfg.resume is None:
        refuse_used_folder(folder)
    if is_new and cfg.resume in (None, AUTO):  # beside resume=PATH the stored one counts
        save_hydra_files(cfg, folder)
    try:
        check(cfg)
    except UserError as error:
        if is_new:
            write_json(folder / "summary.json", origin(is_sweep) | describe_end(error))
        raise
    checkpoint = None
    if cfg.resume is not None and not (is_new and cfg.resume == AUTO):
        if cfg.resume == AUTO and (summary := finished(folder, config_hash(resolve(cfg)))):
            return old_result(summary, folder)
        if is_sweep:
            cfg, checkpoint = restore_or_begin_anew(cfg, folder, f"Job {hydra.job.num}")
        else:
            cfg, checkpoint = restore(cfg, folder, [*hydra.overrides.task], config_folders())
        if summary := finished(folder, config_hash(resolve(cfg))):
            return old_result(summary, folder)
        if checkpoint is None:
            save_hydra_files(cfg, folder)
        elif cfg.resume != AUTO:
            set_newer_aside(cfg.resume, folder)
    from cifar.experiment import run  # imports torch, which takes seconds

    group = "/".join(Path(hydra.sweep.dir).parts[-2:]) if is_sweep else None
    name = job_label(HydraConfig.instance().cfg) if is_sweep else "/".join(folder.parts[-2:])
    return run(cfg, folder, name, group, checkpoint, origin(is_sweep))


def origin(is_sweep: bool) -> dict[str, Any]:
    """Return how the command line described the job, for its summary."""
    hydra = HydraConfig.get()
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    words = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(words, list)
    return {
        "job": hydra.job.num if is_sweep else None,
        "overrides": [word for word in words if not re.match(r"\+{0,2}resume=", str(word))],
        "choices": choices,
    }


def job_label(config: Any) -> str:
    """Return what makes the sweep's job differ from the others, such as "lr=0.01 seed=3"."""
    number, plan = config.hydra.job.num, read_plan(Path(config.hydra.sweep.dir))
    if plan is not None and number < len(plan.jobs):
        return plan.label(number)
    return " ".join(word for word in config.hydra.overrides.task if word != "resume=auto")


def old_result(summary: dict[str, Any], folder: Path) -> float:
    """Return what a finished run returned, and say so."""
    result = result_of(summary)
    log.info(f"{os.path.relpath(folder)} is done already: {100 * summary['test_accuracy']:.2f} % on the test images.")
    return result


def save_hydra_files(cfg: DictConfig, folder: Path) -> None:
    """Write .hydra/ as Hydra would, which does so before it asks whether the folder is free."""
    target = folder / ".hydra"
    target.mkdir(exist_ok=True)
    hydra = HydraConfig.instance().cfg
    OmegaConf.save(cfg, target / "config.yaml")
    OmegaConf.save(hydra, target / "hydra.yaml")
    OmegaConf.save(HydraConfig.get().overrides.task, target / "overrides.yaml")


class Jobs(LogJobReturnCallback):
    """Guard a sweep's folder and say of every job when it starts and how it ends.

    A job that failed is logged the moment it fails, a mistake of the user without a traceback.
    """

    started_at = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep other processes off the folder, and refuse one that already holds a sweep."""
        global way_on, _sweep
        folder = Path(config.hydra.sweep.dir).absolute()
        try:
            sweep_lock.enter_context(locked(folder))
            if (folder / "multirun.yaml").exists() and "resume=auto" not in config.hydra.overrides.task:
                raise UserError(
                    f"{folder} already holds a sweep. Continue it with python -m cifar.resume "
                    f"{shlex.quote(os.path.relpath(folder))}, or take another hydra.sweep.dir."
                )
            write_plan(folder, make_plan(sweep_words(config), num_over(folder)))
        except HydraException:
            pass  # the sweeper says the same, or it is one with a syntax of its own
        except (UserError, OSError) as error:
            raise RefusedError(str(error)) from None
        _sweep = config
        way_on = f"Continue with: python -m cifar.resume {shlex.quote(os.path.relpath(folder))}"

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say which job of a sweep starts."""
        self.started_at = perf_counter()
        if config.hydra.mode == RunMode.MULTIRUN:
            self.log.info(f"Job {config.hydra.job.num} starts: {job_label(config)}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say how a sweep's job ended and how far the sweep is; `start` reports a single run's failure."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        title, error = f"Job {config.hydra.job.num}", job_return._return_value
        if job_return.status != JobStatus.FAILED:
            text = result_text(read_summary(Path(config.hydra.runtime.output_dir)))
            self.log.info(f"{title} ({job_label(config)}): {text}, {time_text(perf_counter() - self.started_at)}")
        elif isinstance(error, StoppedError):
            self.log.info(f"{title}: {error}")
        elif isinstance(error, UserError):
            self.log.error(f"{title} failed: {error}")
        else:
            super().on_job_end(config=config, job_return=job_return, **kwargs)
        folder = Path(config.hydra.sweep.dir)
        if plan := read_plan(folder):
            done = statuses(folder)
            self.log.info(progress(len(plan.jobs), done, time() - plan.started_at, plan.num_done_before))


def sweep_words(config: DictConfig) -> list[str]:
    """Return all that Hydra's basic sweeper makes its jobs from: its own parameters, then the command's words."""
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    task = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(task, list)
    return [*words, *map(str, task)]


def result_text(summary: dict[str, Any]) -> str:
    """Return a finished run's accuracies in words."""
    sets = [("val_accuracy", "validation"), ("test_accuracy", "test")]
    found = [f"{100 * summary[key]:.2f} % on the {name} images" for key, name in sets if summary.get(key) is not None]
    return ", ".join([*(["diverged"] if summary.get("status") == "diverged" else []), *found])


def report_sweep() -> None:
    """Write and show the report of the sweep that this command ran, if any of its jobs began; a failure only warns."""
    if _sweep is not None and find_runs(folder := Path(_sweep.hydra.sweep.dir)):
        report_on(folder, _sweep.tracker)


def report_on(folder: Path, tracker: DictConfig) -> None:
    """Write and show the report on the runs in a folder, and give it to the dashboard; a failure only warns."""
    try:
        from cifar.experiment import log_report
        from cifar.report import report
        from cifar.tracking import RunInfo

        report([folder], folder)
        group = "/".join(folder.parts[-2:])
        log_report(tracker, RunInfo(f"report {group}", group, {}, folder=folder, job_type="report"), folder)
    except Exception as error:
        print(f"The report could not be made: {type(error).__name__}: {error}")
        print(f"Try again: python -m cifar.report {shlex.quote(os.path.relpath(folder))}")

"""One job of a Hydra command, a single run or one of a sweep's, and the report on many.

Nothing here imports torch before the configuration is known to be good.
"""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar.base import signals, streams
from cifar.base.errors import DivergedError, Passing, StoppedError, UserError, continued_by, describe_end
from cifar.base.locks import is_locked, locked
from cifar.base.orphans import ended_with_parent
from cifar.base.paths import absolute, shown
from cifar.base.run_folder import holds_run, read_summary, refuse_used_folder, score, write_json
from cifar.base.shares import num_cores, take_share
from cifar.commands.messages.config_files import placed_keys
from cifar.experiment.config import check, config_hash, resolve
from cifar.experiment.restore import AUTO, finished, restore, restore_or_begin_anew, result_of, set_newer_aside
from cifar.experiment.stored.trust import config_folders
from cifar.experiment.typed.command_line import config_flags, named_choices, resume_command, words_of
from cifar.sweeps.plan import read_plan

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


def job(cfg: DictConfig) -> float:
    """Run one job of a Hydra command in the folder that Hydra made for it."""
    streams.secure()
    signals.install()  # this may be a process of the launcher's
    logging.raiseExceptions = False  # a full disk is reported once, not by every line of run.log
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return sweep_job(cfg)
    try:
        return single_job(cfg)
    except Exception as error:
        raise Passing(error) from None


def single_job(cfg: DictConfig) -> float:
    """Run the only job of the command."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with locked(folder), continued_by(lambda: resume_command(folder) if (folder / "checkpoint.pt").exists() else None):
        signals.check()
        result = work(cfg, folder, is_sweep=False)
        signals.check()
    return result


def sweep_job(cfg: DictConfig) -> float:
    """Run a job of a sweep; one that its launcher starts again goes on, as the sweep has its folder to itself."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with ExitStack() as stack:
        if signals.is_worker():
            stack.enter_context(ended_with_parent())
            take_share(absolute(HydraConfig.get().sweep.dir), num_workers())
        if signals.has_come():
            raise StoppedError("not started, because the sweep is stopped.")
        stack.enter_context(locked_in_time(folder))
        try:
            result = work(cfg, folder, is_sweep=True)
        except DivergedError as error:
            log.error(f"Job {HydraConfig.get().job.num}: {error}")
            result = score(read_summary(folder))
        except signals.Interrupted:
            if signals.is_worker():  # the launcher would kill the other workers at once
                raise StoppedError("interrupted.") from None
            raise
    if not signals.is_worker():
        signals.check()
    return result


def num_workers() -> int:
    """Return how many processes joblib runs side by side, of which this is one."""
    hydra = HydraConfig.get()
    asked, plan = int(hydra.launcher.get("n_jobs", 1)), read_plan(absolute(hydra.sweep.dir))
    most = asked if asked > 0 else max(1, num_cores() + 1 + asked)  # joblib's -1 is all cores, -2 all but one
    return min(most, len(plan.jobs)) if plan is not None else most


@contextmanager
def locked_in_time(folder: Path) -> Iterator[None]:
    """Keep every other process off the folder, after waiting for one that is there: a worker that lost its sweep."""
    if is_locked(folder):
        log.info(f"{os.path.relpath(folder)} is still in use by another process: waiting until that ends.")
    while is_locked(folder):
        if signals.has_come():
            raise StoppedError("not started, because the sweep is stopped.")
        sleep(LOOK_SECONDS)
    with locked(folder):
        yield


@placed_keys()
def work(cfg: DictConfig, folder: Path, is_sweep: bool) -> float:
    """Begin or resume the run of a job, or return the result that it already has."""
    hydra = HydraConfig.get()
    is_new = not holds_run(folder)
    if cfg.resume is None and not is_sweep:
        refuse_used_folder(folder, resume_command(folder))
    if is_new and cfg.resume in (None, AUTO):  # beside resume=PATH the stored one counts
        save_hydra_files(cfg, folder)
    try:
        check(cfg)
    except UserError as error:
        if is_new:
            write_json(folder / "summary.json", origin(is_sweep) | describe_end(error))
        raise
    if is_sweep:
        cfg.resume = AUTO
    checkpoint = None
    if cfg.resume is not None and not (is_new and cfg.resume == AUTO):
        if cfg.resume == AUTO and (summary := finished(folder, config_hash(resolve(cfg)))):
            return old_result(summary, folder)
        if is_sweep:
            cfg, checkpoint = restore_or_begin_anew(cfg, folder, f"Job {hydra.job.num}")
        else:
            cfg, checkpoint = restore(cfg, folder, words_of(hydra), config_folders())
        if summary := finished(folder, config_hash(resolve(cfg))):
            return old_result(summary, folder)
        if checkpoint is None:
            save_hydra_files(cfg, folder)
        elif cfg.resume != AUTO:
            set_newer_aside(cfg.resume, folder)
    if "torch" not in sys.modules and sys.stderr.isatty():
        print("Loading PyTorch …", file=sys.stderr)
    from cifar.experiment.run import run  # imports torch, which takes seconds
    from cifar.reports.run_report import page_at_end

    group = "/".join(Path(hydra.sweep.dir).parts[-2:]) if is_sweep else None
    name = job_label(HydraConfig.instance().cfg) if is_sweep else "/".join(folder.parts[-2:])
    return run(cfg, folder, name, group, checkpoint, origin(is_sweep), make_page=page_at_end)


def origin(is_sweep: bool) -> dict[str, Any]:
    """Return how the command line described the job, for its summary."""
    hydra = HydraConfig.get()
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    words = words_of(hydra)
    return {
        "job": hydra.job.num if is_sweep else None,
        "overrides": [word for word in words if not re.match(r"\+{0,2}resume=", word)],
        "flags": config_flags(),
        "choices": named_choices(choices, words),
    }


def job_label(config: Any) -> str:
    """Return what makes the sweep's job differ from the others, such as "lr=0.01 seed=3"."""
    number, plan = config.hydra.job.num, read_plan(absolute(config.hydra.sweep.dir))
    if plan is not None and number in plan.numbers:
        return plan.label(number)
    return " ".join(word for word in words_of(config.hydra) if word != "resume=auto")


def old_result(summary: dict[str, Any], folder: Path) -> float:
    """Return what a finished run returned, and say so."""
    result = result_of(summary)
    log.info(f"{shown(folder)} is done already: {100 * summary['test_accuracy']:.2f} % on the test images.")
    return result


def save_hydra_files(cfg: DictConfig, folder: Path) -> None:
    """Write .hydra/ as Hydra would, which does so before it asks whether the folder is free."""
    target = folder / ".hydra"
    target.mkdir(exist_ok=True)
    hydra = HydraConfig.instance().cfg
    OmegaConf.save(cfg, target / "config.yaml")
    OmegaConf.save(hydra, target / "hydra.yaml")
    OmegaConf.save(HydraConfig.get().overrides.task, target / "overrides.yaml")


def report_on(folder: Path, tracker: DictConfig) -> None:
    """Write and show the report on the runs in a folder, and give it to the dashboard; a failure only warns."""
    try:
        from cifar.experiment.run import log_report
        from cifar.reports.report import report
        from cifar.tracking.tracking import RunInfo

        report([folder], folder)
        group = "/".join(folder.parts[-2:])
        log_report(tracker, RunInfo(f"report {group}", group, {}, folder=folder, job_type="report"), folder)
    except Exception as error:
        print(f"The report could not be made: {type(error).__name__}: {error}")
        print(f"Try again: cifar report {shlex.quote(os.path.relpath(folder))}")

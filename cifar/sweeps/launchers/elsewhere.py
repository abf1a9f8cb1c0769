"""A job of a sweep in a process that an engine such as SLURM or Ray starts, perhaps on another machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar.base import signals
from cifar.base.errors import StoppedError, UserError
from cifar.base.locks import await_silence, silence
from cifar.base.run_folder import read_summary
from cifar.experiment.typed.command_line import key_of
from cifar.sweeps.plan import OVER, OWN_NUMBER, find_runs


@dataclass
class Elsewhere:
    """What every job of the sweep is made of; an engine carries it to the process that runs one."""

    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig
    cwd: str = field(default_factory=os.getcwd)
    state: Any = None  # Hydra's, which `carried` takes along

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.config.hydra.sweep.dir).absolute()

    def carried(self) -> "Elsewhere":
        """Return what goes to the other process."""
        return Elsewhere(self.hydra_context, self.task_function, self.config, self.cwd, Singleton.get_state())

    def run(self, overrides: Sequence[str], job_id: str) -> JobReturn:
        """Run the job with these overrides in this process; raise `Interrupted` after a signal has ended it."""
        Singleton.set_state(self.state)
        setup_globals()
        config = self.hydra_context.config_loader.load_sweep_config(self.config, [*overrides])
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = job_id, number_of(overrides)
        HydraConfig.instance().set_config(config)
        with signals.handled():
            await_silence(run_folder(self.folder, number_of(overrides)))  # it may have begun on a node that is lost
            return run_job(
                task_function=self.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self.hydra_context,
            )


def number_of(overrides: Sequence[str]) -> int:
    """Return the number that the sweeper gave the job."""
    return next(int(word.partition("=")[2]) for word in overrides if key_of(word) == OWN_NUMBER)


def run_folder(sweep: Path, number: int) -> Path:
    """Return the folder of the job's run, wherever hydra.sweep.subdir has it; the usual one, if it has not begun."""
    usual = sweep / str(number)
    if read_summary(usual).get("job") == number:
        return usual
    return next((run for run in find_runs(sweep) if read_summary(run).get("job") == number), usual)


def has_saved(run: Path, seconds: float) -> bool:
    """Return whether the run in the folder has saved its state in the last seconds, by the file system's own clock."""
    since = silence(run / "checkpoint.pt")
    return since is not None and since <= seconds


def outcome(sweep: Path, number: int, where: str) -> JobReturn:
    """Return how a job whose process is gone ended, as its summary tells; `where` is named if it tells nothing."""
    summary = read_summary(run_folder(sweep, number))
    status = summary.get("status")
    if status in OVER:
        return JobReturn(status=JobStatus.COMPLETED, _return_value=summary.get("val_accuracy"))
    if status == "failed":
        error = UserError(f"Job {number} failed: {summary.get('error')}")
    elif status == "interrupted":
        error = StoppedError(f"Job {number} was interrupted.")
    else:
        error = UserError(f"Job {number} ended without a word. {where}")
    return JobReturn(status=JobStatus.FAILED, _return_value=error)


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return a launcher's options as plain values."""
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in options.items()
    }

"""The command line around Hydra: one job, and what the user sees when something goes wrong.

Nothing here imports torch before the configuration is known to be good.
"""

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callbacks import LogJobReturnCallback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar import signals
from cifar.config import RULES, check, config_hash, resolve, unknown_key
from cifar.errors import DivergedError, StoppedError, UserError, describe_end
from cifar.resume import AUTO, LengthError, finished, place, restore, result_of, set_newer_aside
from cifar.run_folder import holds_run, locked, put_aside, read_summary, refuse_used_folder, score, write_json

log = logging.getLogger(__name__)

_sweep_lock = ExitStack()
_way_on = ""  # the command that continues what a signal stops


class RefusedError(BaseException):
    """A sweep that may not begin; no `Exception`, because Hydra goes on after those of its callbacks."""


def start(main: Callable[[], Any]) -> None:
    """Call Hydra's `main`; what the user can mend ends in one message and exit code 1, a signal in 130 or 143.

    With the environment variable HYDRA_FULL_ERROR=1 the traceback is shown all the same.
    """
    show_tracebacks = "HYDRA_FULL_ERROR" in os.environ
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises its errors here instead of printing them
    signals.install()
    try:
        with _sweep_lock:
            sys.argv[1:] = place(sys.argv[1:])
            main()
    except KeyboardInterrupt as error:
        leave(error)
    except RefusedError as error:
        sys.exit(str(error))
    except Exception as error:
        if signals.has_come():
            if isinstance(error, (UserError, OSError)) and not isinstance(error, StoppedError):
                print(error, file=sys.stderr)
            elif not isinstance(error, StoppedError) and not type(error).__module__.startswith("joblib"):
                traceback.print_exception(error)  # joblib's is about the workers that the signal stopped
            leave(error)
        if show_tracebacks or not isinstance(error, (UserError, HydraException, OmegaConfBaseException, OSError)):
            raise
        sys.exit(explain(error))


def leave(error: BaseException) -> None:
    """End the process with the exit code of the signal that asked for it."""
    print(f"Interrupted. {_way_on}".strip(), file=sys.stderr)
    if getattr(error, "is_hasty", False):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(signals.exit_code())
    sys.exit(signals.exit_code())


def job(cfg: DictConfig) -> float:
    """Run one job of a Hydra command in the folder that Hydra made for it."""
    global _way_on
    hydra = HydraConfig.get()
    folder, is_sweep = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
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
                _way_on = f"Continue with: python run.py resume={shlex.quote(os.path.relpath(folder))}"
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
            write_json(folder / "summary.json", describe_end(error))
        raise
    checkpoint = None
    if cfg.resume is not None and not (is_new and cfg.resume == AUTO):
        if cfg.resume == AUTO and (summary := finished(folder, config_hash(resolve(cfg)))):
            return old_result(summary, folder)
        try:
            cfg, checkpoint = restore(cfg, folder, [*hydra.overrides.task])
        except UserError as error:
            if not is_sweep or isinstance(error, LengthError):
                raise
            aside = put_aside(folder)
            log.warning(f"Job {hydra.job.num} is begun anew; what it had is now in {os.path.relpath(aside)}. {error}")
        if summary := finished(folder, config_hash(resolve(cfg))):
            return old_result(summary, folder)
        if checkpoint is None:
            save_hydra_files(cfg, folder)
        elif cfg.resume != AUTO:
            set_newer_aside(cfg.resume, folder)
    from cifar.experiment import run  # imports torch, which takes seconds

    group = "/".join(Path(hydra.sweep.dir).parts[-2:]) if is_sweep else None
    name = f"{group}/{folder.name}" if is_sweep else "/".join(folder.parts[-2:])
    return run(cfg, folder, name, group, checkpoint)


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
    """Guard a sweep's folder; log a job that failed the moment it fails, a mistake of the user without a traceback."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep other processes off the folder, and refuse one that already holds a sweep."""
        global _way_on
        folder = Path(config.hydra.sweep.dir).absolute()
        try:
            _sweep_lock.enter_context(locked(folder))
            if (folder / "multirun.yaml").exists() and "resume=auto" not in config.hydra.overrides.task:
                raise UserError(
                    f"{folder} already holds a sweep. Continue it with python -m cifar.resume "
                    f"{shlex.quote(os.path.relpath(folder))}, or take another hydra.sweep.dir."
                )
        except (UserError, OSError) as error:
            raise RefusedError(str(error)) from None
        _way_on = f"Continue with: python -m cifar.resume {shlex.quote(os.path.relpath(folder))}"

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Log the failure; a job that succeeded has said so itself, and `start` reports a single run's failure."""
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        if isinstance(error, StoppedError):
            self.log.info(f"Job {config.hydra.job.num}: {error}")
        elif isinstance(error, UserError):
            self.log.error(f"Job {config.hydra.job.num} failed: {error}")
        else:
            super().on_job_end(config=config, job_return=job_return, **kwargs)


def explain(error: Exception) -> str:
    """Return one message for an error in the configuration that says what is allowed."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice} is not possible: there is {', '.join(error.options)}."
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if not isinstance(cause, OmegaConfBaseException):
        return str(error)
    key, parent = str(cause.full_key), cause.parent_node
    if isinstance(parent, DictConfig) and cause.key not in parent:
        return str(unknown_key(key, [str(name) for name in parent if name != "hydra"]))
    allowed = f" It takes {RULES[key][0]}." if key in RULES else ""
    return f"{key}: {str(cause.msg).splitlines()[0].rstrip('.')}.{allowed}"

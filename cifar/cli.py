"""The command line around Hydra: one job, and what the user sees when something goes wrong.

Nothing here imports torch before the configuration is known to be good.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callbacks import LogJobReturnCallback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar.config import RULES, check, unknown_key
from cifar.errors import UserError, describe_end
from cifar.run_folder import refuse_used_folder, write_json


def start(main: Callable[[], Any]) -> None:
    """Call Hydra's `main`; what the user can mend ends in one message and exit code 1, Ctrl-C in exit code 130.

    With the environment variable HYDRA_FULL_ERROR=1 the traceback is shown all the same.
    """
    show_tracebacks = "HYDRA_FULL_ERROR" in os.environ
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises its errors here instead of printing them
    try:
        main()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        if show_tracebacks:
            raise
        sys.exit(explain(error))


def job(cfg: DictConfig) -> float:
    """Run one job of a Hydra command in the folder that Hydra made for it."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    refuse_used_folder(folder)
    try:
        check(cfg)
    except UserError as error:
        write_json(folder / "summary.json", describe_end(error))
        raise
    from cifar.experiment import run  # imports torch, which takes seconds

    is_sweep = hydra.mode == RunMode.MULTIRUN
    group = "/".join(Path(hydra.sweep.dir).parts[-2:]) if is_sweep else None
    name = f"{group}/{folder.name}" if is_sweep else "/".join(folder.parts[-2:])
    return run(cfg, folder, name, group)


class LogFailedJob(LogJobReturnCallback):
    """Log a sweep's job that failed the moment it fails, a mistake of the user without a traceback."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Log the failure; a job that succeeded has said so itself, and `start` reports a single run's failure."""
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        if isinstance(error, UserError):
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

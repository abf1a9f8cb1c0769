"""Where a sweep's jobs run, as Hydra finds it: `hydra/launcher=slurm` and `hydra/launcher=ray`.

Hydra imports this wherever it starts, so what a launcher needs is imported when it is used.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cifar.base.errors import UserError
from cifar.sweeps.launchers.elsewhere import Elsewhere, plain_options


class ElsewhereLauncher(Launcher):
    """A launcher whose jobs run in processes that the engine of its `extra` starts."""

    extra = ""

    def __init__(self, **options: Any) -> None:
        self.options = plain_options(options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what a job is made of; raise `UserError` if the engine is not installed or an option impossible."""
        self.elsewhere = Elsewhere(hydra_context, task_function, config)
        try:
            self.look()
        except ImportError as error:
            raise UserError(
                f"hydra/launcher={self.extra} needs {error.name}, which is not installed: "
                f"pip install 'cifar-framework[{self.extra}]'"
            ) from None

    def look(self) -> None:
        """Import the engine and check the options."""
        raise NotImplementedError


class SlurmLauncher(ElsewhereLauncher):
    """Submit a sweep's jobs to SLURM."""

    extra = "slurm"

    def look(self) -> None:
        """Import submitit and check the options."""
        from cifar.sweeps.launchers import slurm

        slurm.refuse_impossible_options(self.options)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs, and wait for them if `wait` says so."""
        from cifar.sweeps.launchers import slurm

        return slurm.launch(self.elsewhere, self.options, job_overrides)


class RayLauncher(ElsewhereLauncher):
    """Run a sweep's jobs on a Ray cluster."""

    extra = "ray"

    def look(self) -> None:
        """Import Ray and check the options."""
        from cifar.sweeps.launchers import ray_cluster

        ray_cluster.refuse_impossible_options(self.options)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs on the cluster."""
        from cifar.sweeps.launchers import ray_cluster

        return ray_cluster.launch(self.elsewhere, self.options, job_overrides)

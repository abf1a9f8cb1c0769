"""Train and evaluate one configuration, or with -m many: `cifar run model=resnet50 lr=0.01`; run.py is the same."""

import hydra
from omegaconf import DictConfig

from cifar.base.paths import CONF
from cifar.commands.app import cli, jobs


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(cfg: DictConfig) -> float:
    """Run one job."""
    return jobs.job(cfg)


def command() -> None:
    """Run what the command line says."""
    cli.start(run)

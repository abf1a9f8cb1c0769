"""Train and evaluate one configuration, or with -m many: python run.py model=resnet50 lr=0.01."""

import hydra
from omegaconf import DictConfig

from cifar.commands.app import cli, jobs


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Run one job."""
    return jobs.job(cfg)


if __name__ == "__main__":
    cli.start(main)

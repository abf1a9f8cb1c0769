"""`cifar.train`: a run from Python, with its page at the end as `cifar run` makes it."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cifar.experiment import python
from cifar.reports.run_report import page_at_end


def train(cfg: DictConfig, folder: str | Path) -> dict[str, Any]:
    """Train and test what `cfg` describes, as `cifar run` does, and return the summary that `folder` then holds.

    With `cfg.resume = "auto"` a run that was cut goes on, and one that is done is not made again. Raises `UserError`
    for a mistake, and `DivergedError` after testing the last state; the summary is written all the same.
    """
    return python.train(cfg, folder, page_at_end)

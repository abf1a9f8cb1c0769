"""run.py's command in the test's own process, up to the point where data would be read: seconds saved on each."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from cifar.commands.app import cli, jobs
from cifar.commands.messages.config_files import placed_keys
from cifar.experiment.building import build_optimizer, create
from cifar.experiment.config import check, config_hash, point_hash, resolve
from cifar.tracking.tracking import RunInfo
from cifar.training.devices.device import set_up_device
from tests.processes import ROOT


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    output: str
    errors: str


@placed_keys()
def light_work(cfg: DictConfig, folder: Path, is_sweep: bool) -> float:
    """Check a job's configuration and build what takes no time."""
    for node in (cfg, HydraConfig.instance().cfg):
        OmegaConf.to_yaml(node)
    jobs.origin(is_sweep)
    check(cfg)
    config = resolve(cfg)
    config_hash(config)
    point_hash(cfg)
    set_up_device(**cfg.device)
    for node in (cfg.data.source, cfg.augment, cfg.mix):
        create(node)
    create(cfg.schedule).over(cfg.epochs * 10, 10)(0)
    create(cfg.tracker, RunInfo("run", None, config, folder=folder))
    model = create(cfg.model) if "speednet" in str(cfg.model._target_) else nn.Sequential(nn.Conv2d(3, 4, 3))
    build_optimizer(cfg, model)
    return 0.0


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
def main(cfg: DictConfig) -> float:
    """Run one job."""
    return jobs.job(cfg)


@contextlib.contextmanager
def own_logging() -> Iterator[None]:
    """Put the root logger's handlers back afterwards, which Hydra replaces for every job."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    try:
        yield
    finally:
        for handler in {*root.handlers} - {*handlers}:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def call(*words: str) -> Outcome:
    """Call run.py with the words, in the working directory."""
    buffers = io.BytesIO(), io.BytesIO()
    output, errors = (io.TextIOWrapper(buffer, encoding="utf-8", write_through=True) for buffer in buffers)
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    code = 0
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", ["run.py", *words]),
        mock.patch.object(jobs, "work", light_work),
        mock.patch.object(HydraConfig.instance(), "cfg", None),  # else later tests would be where this one was typed
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        own_logging(),
    ):
        try:
            cli.start(main)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
    return Outcome(code, *(buffer.getvalue().decode() for buffer in buffers))


def exit_of(command: Callable[[], None], verb: str, *words: str) -> int | str | None:
    """Call a verb's command in this process with these words; return what it exits with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"cifar {verb}", *words])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            command()
        except SystemExit as end:
            return end.code
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)  # which the command has set
    return 0

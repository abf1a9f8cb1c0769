"""The interface for Python: the command's numbers, and nothing global left changed."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import cifar
from cifar.base.errors import UserError
from tests.conftest import QUIET, ROOT, Command, read_metrics, read_summary


def numbers(folder: Path) -> list[tuple[object, ...]]:
    return [tuple(entry.get(key) for key in ("step", "train/loss", "test/loss")) for entry in read_metrics(folder)]


def test_train_does_what_the_command_does_and_changes_nothing_global(tmp_path: Path, command: Command) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    place, words = os.getcwd(), [*sys.argv]
    first = cifar.train(cifar.compose([*QUIET, "seed=3"]), tmp_path / "one")
    second = cifar.train(cifar.compose([*QUIET, "seed=3"]), tmp_path / "two")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert (os.getcwd(), sys.argv) == (place, words)
    assert first["test_accuracy"] == second["test_accuracy"]
    assert first == read_summary(tmp_path / "one")
    assert command(*QUIET, "seed=3", "hydra.run.dir=three").returncode == 0
    assert numbers(tmp_path / "one") == numbers(tmp_path / "two") == numbers(tmp_path / "three")
    assert first["config_hash"] == read_summary(tmp_path / "three")["config_hash"]
    assert "Accuracy of the model on the test images" in (tmp_path / "one" / "run.log").read_text()


def test_a_used_folder_is_refused_and_a_run_that_is_done_is_not_made_again(tmp_path: Path) -> None:
    cfg = cifar.compose(QUIET)
    summary = cifar.train(cfg, tmp_path / "one")
    with pytest.raises(UserError, match="already holds a run"):
        cifar.train(cfg, tmp_path / "one")
    cfg.resume = "auto"
    assert cifar.train(cfg, tmp_path / "one") == summary


def test_a_mistake_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lr=-1"):
        cifar.compose(["lr=-1"])
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        cifar.trian  # noqa: B018


def test_a_folder_of_ones_own_configuration_is_searched() -> None:
    cfg = cifar.compose(["model=tiny"], config_dir=ROOT / "tests" / "conf")
    assert cfg.model._target_ == "tests.tiny_model.tiny"


def test_it_goes_beside_hydra_that_is_begun_already() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert cifar.compose(["lr=0.5"]).lr == 0.5
        assert compose("config", overrides=["lr=0.25"]).lr == 0.25


def test_a_sweep_is_read(tmp_path: Path) -> None:
    for seed in (0, 1):
        cifar.train(cifar.compose([*QUIET, f"seed={seed}"]), tmp_path / "sweep" / str(seed))
    results = cifar.read_sweep(tmp_path / "sweep")
    (point,) = results.points
    assert [run.seed for run in point.runs] == [0, 1]

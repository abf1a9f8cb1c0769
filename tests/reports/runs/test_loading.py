"""Which run a path means, and which one is a sweep's best."""

from pathlib import Path

import pytest

import cifar
from cifar.base.errors import UserError
from cifar.reports.runs.loading import best_run, find_checkpoint
from tests.conftest import QUIET
from tests.sweep_folders import write_run

OWN = ["model._target_=tests.tiny_model.tiny"]


def test_the_best_is_the_best_seed_of_the_best_mean(tmp_path: Path) -> None:
    for number, (lr, accuracies) in enumerate({0.1: [0.9, 0.2], 0.2: [0.6, 0.7]}.items()):
        for seed, accuracy in enumerate(accuracies):
            write_run(tmp_path / f"{lr}-{seed}", lr, seed, 2 * number + seed, val_accuracy=accuracy)
    assert best_run(tmp_path) == tmp_path / "0.2-1"


def test_the_test_images_choose_nothing(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), 0.1, seed, seed)
    with pytest.raises(UserError, match=r"held no validation images out.*data.val_size=5000"):
        best_run(tmp_path)


def test_a_folder_a_file_and_a_sweep_are_told_apart(tmp_path: Path) -> None:
    run = tmp_path / "sweep" / "0"
    cifar.train(cifar.compose([*QUIET, "data.val_size=20"]), run)
    assert find_checkpoint(run) == run / "checkpoint.pt"
    assert cifar.load_run(tmp_path / "sweep", OWN, best=True).folder == run
    assert cifar.load_run(run / "checkpoint.pt", OWN).folder == run
    with pytest.raises(UserError, match="holds 1 runs: name one"):
        cifar.load_run(tmp_path / "sweep")
    with pytest.raises(UserError, match="no such file"):
        cifar.load_run(tmp_path / "absent")
    for path in run.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(UserError, match="no run has saved"):
        cifar.load_run(run)

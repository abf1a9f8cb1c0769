"""Averaged and best weights from the configuration to the files: exact resume, what is handed on, messages."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cifar
from cifar.base import signals
from cifar.base.errors import UserError
from cifar.base.sealed import read_checkpoint
from cifar.experiment.config import check, config_hash, resolve
from cifar.experiment.restore import LengthError
from cifar.experiment.stored.weights import load_weights
from tests.conftest import QUIET, Compose, read_metrics, read_summary
from tests.experiment.test_restore import LONG, assert_identical, cut_after, results, resumed, run_with_cuts
from tests.tiny_model import tiny

AVERAGES = {
    "ema": ["average=ema", "average.decay=0.9"],
    "recomputed": ["average=ema", "average.decay=0.9", "average.statistics=recomputed", "average.every_steps=4"],
    "swa": ["average=swa", "average.start=0.3", "average.every_epochs=0.5"],
    "lawa": ["average=lawa", "average.count=2", "average.every_epochs=0.4"],
}
OWN = ["model._target_=tests.tiny_model.tiny"]


@pytest.fixture(autouse=True)
def _forget_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", None)


def all_of(folder: Path) -> dict[str, Any]:
    """Return what `results` does, with the averaged and the best weights."""
    content = read_checkpoint(folder / "checkpoint.pt")
    parts = {"average": content["average"], "best_model": content["best_model"]}
    if (folder / "best.pt").is_file():
        best = read_checkpoint(folder / "best.pt")
        parts["best.pt"] = {"model": best["model"], "best": best["best"]}
    return results(folder) | parts


@pytest.mark.parametrize("name", AVERAGES)
def test_a_run_that_is_cut_often_has_the_same_averaged_and_best_weights(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cfg = compose(*LONG, *AVERAGES[name], "keep_best=true")
    run_with_cuts(monkeypatch, cfg, tmp_path / "uncut", iter([]))
    assert run_with_cuts(monkeypatch, cfg, tmp_path / "cut", iter([3, 5, 1, 4, 2, 3, 1])) == 7
    one, other = all_of(tmp_path / "uncut"), all_of(tmp_path / "cut")
    assert {"average", "best_model", "best.pt"} <= one.keys()
    assert one["average"]["is_ready"]
    assert_identical(one, other)
    assert read_summary(tmp_path / "cut")["weights"] == "averaged"


def test_what_a_run_hands_on_are_the_weights_that_were_tested(tmp_path: Path) -> None:
    words = [*QUIET, *AVERAGES["lawa"], "epochs=2", "data.val_size=20", "keep_best=true"]
    summary = cifar.train(cifar.compose(words), tmp_path / "run")
    content = read_checkpoint(tmp_path / "run" / "checkpoint.pt")
    prefix = "module."
    averaged = {key.removeprefix(prefix): value for key, value in content["average"]["state"].items() if prefix in key}
    run = cifar.load_run(tmp_path / "run", OWN)
    for key, value in run.model.state_dict().items():
        assert torch.equal(value, averaged[key]), key
    assert not torch.equal(averaged["0.weight"], content["model"]["0.weight"])
    test = run.test_set()
    _, probabilities = run.predict(test.test_images)
    accuracy = (probabilities.argmax(axis=1) == test.test_labels.numpy()).mean()
    assert accuracy == pytest.approx(summary["test_accuracy"], abs=1e-12)
    model = tiny()
    load_weights(model, tmp_path / "run" / "checkpoint.pt")  # as init_from does
    assert torch.equal(model.state_dict()["0.weight"], averaged["0.weight"])


def test_with_result_last_the_weights_of_the_last_step_are_handed_on(tmp_path: Path) -> None:
    words = [*QUIET, *AVERAGES["lawa"], "average.result=last", "data.val_size=20"]
    cifar.train(cifar.compose(words), tmp_path / "run")
    content = read_checkpoint(tmp_path / "run" / "checkpoint.pt")
    run = cifar.load_run(tmp_path / "run", OWN)
    assert torch.equal(run.model.state_dict()["0.weight"], content["model"]["0.weight"])
    assert "val/averaged_accuracy" in read_metrics(tmp_path / "run")[-2]


def test_averaged_weights_without_statistics_are_not_handed_on(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = compose(*LONG, *AVERAGES["lawa"])
    cut_after(monkeypatch, 4)  # within the first epoch
    (tmp_path / "cut").mkdir()
    with pytest.raises(signals.Interrupted):
        resumed(cfg, tmp_path / "cut")
    run = cifar.load_run(tmp_path / "cut", OWN)
    assert "no batch statistics of their own yet" in caplog.text
    content = read_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    assert torch.equal(run.model.state_dict()["0.weight"], content["model"]["0.weight"])


def test_best_pt_has_the_weights_of_the_best_epoch_and_can_be_loaded(tmp_path: Path) -> None:
    words = [*QUIET, "epochs=4", "data.val_size=20", "keep_best=true", "lr=0.05", "checkpoint.keep=4"]
    summary = cifar.train(cifar.compose(words), tmp_path / "run")
    best = summary["best_val_epoch"]
    assert best < 4, "the case is only worth something if the best is not the last"
    content = read_checkpoint(tmp_path / "run" / "best.pt")
    assert content["best"] == {"epoch": best, "accuracy": summary["best_val_accuracy"]}
    of_epoch = read_checkpoint(tmp_path / "run" / f"checkpoint-{4 - best}.pt")
    assert of_epoch["counters"]["epoch"] == best
    assert_identical({**content["model"]}, {**of_epoch["model"]})
    run = cifar.load_run(tmp_path / "run" / "best.pt", OWN)
    assert torch.equal(run.model.state_dict()["0.weight"], content["model"]["0.weight"])
    assert run.summary["best_val_epoch"] == best


def test_best_weights_that_were_not_kept_are_said_when_keeping_begins_late(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_with_cuts(monkeypatch, compose(*LONG, "lr=1e-12"), tmp_path / "run", iter([]))
    resumed(compose(*LONG, "lr=1e-12", "epochs=4", "keep_best=true"), tmp_path / "run")
    assert "The best weights so far, of epoch " in caplog.text


def test_the_best_is_chosen_by_images_held_out_only(compose: Compose) -> None:
    with pytest.raises(UserError) as error:
        check(compose("keep_best=true"))
    assert str(error.value).startswith("keep_best=true is not possible with data.val_size=0: ")
    check(compose("keep_best=true", "data.val_size=1"))


def test_an_average_is_another_run_and_keeping_the_best_is_not(compose: Compose) -> None:
    hashes = [config_hash(resolve(compose(*words))) for words in ([], ["average=none"], ["keep_best=true"])]
    assert len({*hashes}) == 1
    others = {config_hash(resolve(compose(*words))) for words in AVERAGES.values()}
    assert len(others | {*hashes}) == len(AVERAGES) + 1


def test_another_length_is_refused_if_other_weights_would_have_been_averaged(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*LONG, "average=swa", "average.start=0.5"]
    run_with_cuts(monkeypatch, compose(*words), tmp_path / "run", iter([]))
    with pytest.raises(LengthError, match=r"^epochs=6 is not possible .*: other weights would have been averaged"):
        resumed(compose(*words, "epochs=6"), tmp_path / "run")
    run_with_cuts(monkeypatch, compose(*LONG, *AVERAGES["ema"]), tmp_path / "ema", iter([]))
    resumed(compose(*LONG, *AVERAGES["ema"], "epochs=4"), tmp_path / "ema")

"""Runs on some of a data set's classes, and with the normalisation of their own images."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import cifar
from cifar.base.errors import UserError
from cifar.base.sealed import read_checkpoint
from cifar.data.sources.digits import Digits
from cifar.experiment.building import build_parts
from cifar.experiment.config import check, config_hash, resolve
from cifar.experiment.loaders import build_loaders
from cifar.experiment.restore import restore
from cifar.experiment.run import run
from cifar.experiment.trained import score
from cifar.reports.files.card import card_text
from cifar.reports.findings.card import read_card
from cifar.tracking.tracking import RunInfo
from tests.conftest import QUIET, Compose, read_summary
from tests.pictures import write_class_folders

DIGITS = [word for word in QUIET if not word.startswith("data")] + ["data=digits", "augment=none", "data.limit=60"]
OWN = ["model._target_=tests.tiny_model.tiny"]


def test_the_classes_decide_images_outputs_and_names(tmp_path: Path, compose: Compose) -> None:
    cfg = compose(*DIGITS, "data.classes=[7,3]", "data.val_size=40", "batch_size=20")
    run(cfg, tmp_path)
    summary, checkpoint = read_summary(tmp_path), read_checkpoint(tmp_path / "checkpoint.pt")
    assert (summary["config"]["data"]["classes"], summary["config"]["data"]["num_classes"]) == (["7", "3"], 2)
    assert checkpoint["class_names"] == ["7", "3"]
    trained = cifar.load_run(tmp_path, OWN)
    layer = trained.model[-1]  # type: ignore[index]
    assert isinstance(layer, nn.Linear)
    assert layer.out_features == 2
    all_digits, test = Digits(test_size=360).load(), trained.test_set()
    for place, label in enumerate((7, 3)):
        expected = all_digits.test_images[all_digits.test_labels == label]
        assert torch.equal(test.test_images[test.test_labels == place], expected)
    answers = score(trained, test)
    assert (answers.labels == answers.predicted).mean() == summary["test_accuracy"]
    assert {*trained.predict(test.test_images).names} <= {"7", "3"}


def test_a_run_on_some_classes_goes_on_as_if_uncut(tmp_path: Path, compose: Compose) -> None:
    words = [*DIGITS, "data.classes=[1,4,9]", "epochs=2", "data.mean=null", "data.std=null"]
    (tmp_path / "uncut").mkdir()
    (tmp_path / "cut").mkdir()
    run(compose(*words), tmp_path / "uncut")
    run(compose(*words, "epochs=1"), tmp_path / "cut")
    cfg, checkpoint = restore(compose(*words, "resume=auto"), tmp_path / "cut", [])
    run(cfg, tmp_path / "cut", checkpoint=checkpoint)
    first, second = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("uncut", "cut"))
    assert all(torch.equal(value, second["model"][key]) for key, value in first["model"].items())
    assert first["normalisation"] == second["normalisation"]


def test_without_mean_and_std_those_of_the_training_images_are_taken_and_travel_with_the_weights(
    tmp_path: Path, compose: Compose
) -> None:
    given = compose("data=digits").data
    cfg = compose(*DIGITS, "data.mean=null", "data.std=null")
    assert build_loaders(cfg, build_parts(cfg, RunInfo("run", None, {}))).normalisation == {
        "mean": [*given.mean], "std": [*given.std],
    }  # fmt: skip
    run(cfg, tmp_path)
    trained = cifar.load_run(tmp_path, OWN)
    assert ([*trained.cfg.data.mean], [*trained.cfg.data.std]) == ([*given.mean], [*given.std])
    answers = score(trained, trained.test_set())
    assert (answers.labels == answers.predicted).mean() == read_summary(tmp_path)["test_accuracy"]
    assert re.search(rf"normalised .* with mean \W*{given.mean[0]:g}", card_text(read_card(tmp_path)))
    half = compose(*DIGITS, "data.mean=null")
    half.data.std = [0.5, 0.5, 0.5]
    assert build_loaders(half, build_parts(half, RunInfo("run", None, {}))).normalisation == {
        "mean": [*given.mean], "std": [0.5, 0.5, 0.5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.classes=[7,three]"], r"data\.classes=\[7, three\] is not .* no class 'three'. There is 0, 1, 2"),
        (["data.classes=[7,3]", "data.num_classes=10"], "num_classes=10 is not possible with .* which names 2: give"),
        (["data=cifar100", "data.source.labels=corse"], "^'corse' is not possible: it takes one of fine, coarse"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, compose: Compose, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(compose(*DIGITS, *words), tmp_path)


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ([], 10),
        (["data.classes=[dog,cat,frog]"], 3),
        (["data=cifar100"], 100),
        (["data=cifar100", "data.source.labels=coarse"], 20),
        (["data=cifar100", "data.classes=[apple,bee]"], 2),
        (["data=random", "data.source.num_classes=7"], 7),
        (["data=random", "data.classes=['1','2']"], 2),
    ],
)
def test_the_number_of_classes_follows_the_data(compose: Compose, words: list[str], number: int) -> None:
    cfg = compose(*words)
    check(cfg)
    assert cfg.model.num_classes == cfg.data.num_classes == number


def test_all_classes_have_the_hash_of_before_there_was_a_choice(compose: Compose) -> None:
    config = resolve(compose())
    before = {**config, "data": {key: value for key, value in config["data"].items() if key != "classes"}}
    assert config_hash(before) == config_hash(config)
    assert config_hash(resolve(compose("data.classes=[cat,dog]"))) != config_hash(config)


@pytest.fixture(name="own")
def _own(tmp_path: Path) -> list[str]:
    """Return the words for class folders of one's own."""
    write_class_folders(tmp_path / "pics")
    words = [word for word in QUIET if not word.startswith("data")]
    return [*words, "data=folder", f"data.root={tmp_path / 'pics'}", "data.source.cache=null", "batch_size=8"]


def test_ones_own_pictures_are_trained_on_and_predicted(tmp_path: Path, compose: Compose, own: list[str]) -> None:
    (tmp_path / "run").mkdir()
    run(compose(*own, "data.val_size=5"), tmp_path / "run")
    summary = read_summary(tmp_path / "run")
    assert (summary["config"]["data"]["num_classes"], summary["config"]["model"]["num_classes"]) == (3, 3)
    trained = cifar.load_run(tmp_path / "run", OWN)
    assert trained.class_names == ["bird", "cat", "dog"]
    answers = score(trained, trained.test_set())
    assert (answers.labels == answers.predicted).mean() == summary["test_accuracy"]
    with Image.open(tmp_path / "pics" / "cat" / "01.png") as picture:
        assert trained.predict(picture).names[0] in trained.class_names


def test_other_pictures_are_another_experiment(tmp_path: Path, compose: Compose, own: list[str]) -> None:
    (tmp_path / "run").mkdir()
    run(compose(*own), tmp_path / "run")
    before = config_hash(resolve(compose(*own)))
    shutil.copytree(tmp_path / "pics", tmp_path / "moved")
    assert config_hash(resolve(compose(*own, f"data.root={tmp_path / 'moved'}"))) == before
    (tmp_path / "pics" / "cat" / "00.jpg").unlink()
    changed = compose(*own, "epochs=2", "resume=auto")
    assert config_hash(resolve(changed)) != before
    with pytest.raises(UserError, match=r"data\.source\.content=\w+ is not possible for the run that is resumed"):
        restore(changed, tmp_path / "run", [])
    moved = compose(*own, "epochs=2", "resume=auto", f"data.root={tmp_path / 'moved'}")
    assert restore(moved, tmp_path / "run", [])[1] is not None


@pytest.mark.parametrize("model", ["speednet", "vgg16"])
def test_a_size_that_a_model_cant_take_is_named(tmp_path: Path, compose: Compose, own: list[str], model: str) -> None:
    words = [word for word in own if not word.startswith("model")]
    smaller = ["model.widths=[4,4,4]"] if model == "speednet" else []
    with pytest.raises(UserError, match=rf"have 6×6 pixels, and model\._target_=\S+{model} can't take these .*size=32"):
        run(compose(*words, f"model={model}", *smaller, "data.source.size=6"), tmp_path)


def test_a_missing_root_is_one_message_for_run_and_hash(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"^data\.root=absent: there is no such folder"):
        check(compose("data=folder", "data.root=absent"))
    with pytest.raises(UserError, match=r"^data\.root=absent: there is no such folder"):
        resolve(compose("data=folder", "data.root=absent"))

"""A run that is loaded gives the numbers of its evaluation, needs its checkpoint only, and trusts no stranger's."""

import logging
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cifar
from cifar.base.errors import UserError
from cifar.base.sealed import read_checkpoint, sealed
from cifar.data.loader import Loader
from cifar.data.sources.cifar10 import NAMES as CIFAR10_NAMES
from cifar.data.sources.random_images import RandomImages
from tests.conftest import QUIET, ROOT, read_metrics, read_summary

OWN = ["model._target_=tests.tiny_model.tiny"]


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run on noise, with its classes named by numbers."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    cifar.train(cifar.compose([*QUIET, "data.val_size=20", "tta=mirror", "epochs=2"]), folder)
    return folder


def rewritten(folder: Path, path: Path, **parts: Any) -> Path:
    """Write the run's checkpoint to `path` with other parts, as a stranger may."""
    content = read_checkpoint(folder / "checkpoint.pt") | parts
    path.write_bytes(sealed({key: value for key, value in content.items() if value is not None}))
    return path


def config_with(folder: Path, group: str, **values: Any) -> dict[str, Any]:
    """Return the run's stored configuration with other values in a group."""
    config: dict[str, Any] = read_checkpoint(folder / "checkpoint.pt")["config"]
    return config | {group: config[group] | values}


def test_it_predicts_what_the_evaluation_did(folder: Path) -> None:
    run = cifar.load_run(folder, OWN)
    test = run.test_set()
    names, probabilities = run.predict(test.test_images)
    stored = run.predictions
    np.testing.assert_array_equal(stored["labels"], test.test_labels.numpy())
    np.testing.assert_array_equal(stored["predicted"], probabilities.argmax(axis=1))
    np.testing.assert_array_equal(stored["confidence"], probabilities.max(axis=1))
    assert names == [run.class_names[index] for index in stored["predicted"]]
    assert (stored["predicted"] == stored["labels"]).mean() == pytest.approx(run.summary["test_accuracy"], abs=1e-12)
    with np.load(folder / "predictions.npz", allow_pickle=False) as content:
        assert {name: content[name].dtype for name in ("labels", "predicted", "confidence")} == {
            "labels": np.int64, "predicted": np.int64, "confidence": np.float32,
        }  # fmt: skip
    averaged = run.predict(test.test_images, tta=True).probabilities.argmax(axis=1)
    assert (averaged == stored["labels"]).mean() == pytest.approx(run.summary["test_tta_accuracy"], abs=1e-12)


def test_probabilities_are_those_of_the_plain_model_on_normalised_images(folder: Path) -> None:
    run = cifar.load_run(folder, OWN)
    images = RandomImages(num_train=1, num_test=7, num_classes=10, seed=3).load().test_images
    config = run.config["data"]
    loader = Loader(images, torch.zeros(7), batch_size=7, mean=config["mean"], std=config["std"])
    with torch.inference_mode():
        logits = run.model(loader.first_inputs())
        mirrored = (logits + run.model(loader.first_inputs().flip(3))) / 2
    assert not run.model.training
    np.testing.assert_allclose(run.predict(images).probabilities, logits.softmax(1), rtol=1e-5)
    np.testing.assert_allclose(run.predict(images, tta="mirror").probabilities, mirrored.softmax(1), rtol=1e-5)
    run.model.train()  # dropout and batch statistics would give other numbers
    np.testing.assert_allclose(run.predict(images).probabilities, logits.softmax(1), rtol=1e-5)


def test_pictures_of_any_size_go_through_alone_or_many(folder: Path) -> None:
    run = cifar.load_run(folder, OWN)
    picture = Image.effect_mandelbrot((90, 50), (-2, -1.2, 1, 1.2), 50)
    (name,), probabilities = run.predict(picture)
    assert name in run.class_names
    assert probabilities.shape == (1, 10)
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert run.predict([picture, np.asarray(picture.convert("RGB"))]).names == [name, name]
    assert run.predict([]).names == []
    with pytest.raises(UserError, match="tta='six'"):
        run.predict(picture, tta="six")


def test_columns_are_those_of_the_files(folder: Path) -> None:
    run = cifar.load_run(folder, OWN)
    entries = read_metrics(folder)
    assert run.summary == read_summary(folder)
    assert run.config == run.summary["config"]
    assert {len(column) for column in run.curves.values()} == {len(entries)}
    for key, column in run.curves.items():
        assert [None if math.isnan(value) else value for value in column] == [entry.get(key) for entry in entries]


def test_the_checkpoint_alone_will_do(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere.pt"
    shutil.copy(folder / "checkpoint.pt", alone)
    run, images = cifar.load_run(alone, OWN), torch.zeros((2, 3, 32, 32), dtype=torch.uint8)
    np.testing.assert_array_equal(
        run.predict(images).probabilities, cifar.load_run(folder, OWN).predict(images).probabilities
    )
    for name in ("summary", "curves", "predictions"):
        with pytest.raises(UserError, match=r"beside .*elsewhere\.pt"):
            getattr(run, name)
    (tmp_path / "summary.json").write_text('{"config_hash": "of another"}')
    with pytest.raises(UserError, match="another run's"):
        run.summary  # noqa: B018


def test_class_names_and_the_size_of_the_images_travel_with_the_weights(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = read_checkpoint(folder / "checkpoint.pt")
    assert (stored["class_names"], stored["image_size"]) == ([str(number) for number in range(10)], [32, 32])
    animals = [f"animal {number}" for number in range(10)]
    path = rewritten(folder, tmp_path / "named.pt", class_names=animals, image_size=[8, 16])
    run = cifar.load_run(path, OWN)
    assert run.image_size == (8, 16)
    assert run.predict(np.zeros((50, 50, 3), dtype=np.uint8)).names[0] in animals
    older = {"class_names": None, "image_size": None}
    assert cifar.load_run(rewritten(folder, tmp_path / "old.pt", **older), OWN).class_names == run_numbers()
    assert "classes have numbers" in caplog.text
    source: dict[str, Any] = {"_target_": "cifar.data.sources.CIFAR10", "root": "x", "mirrors": [], "cache": None}
    path = rewritten(folder, tmp_path / "old.pt", **older, config=config_with(folder, "data", source=source))
    assert cifar.load_run(path, OWN).class_names == [*CIFAR10_NAMES]


def run_numbers() -> list[str]:
    return [str(number) for number in range(10)]


def test_the_names_are_those_of_the_real_batches(cifar10_root: str) -> None:
    cfg = cifar.compose([f"data.root={cifar10_root}"])
    assert tuple(hydra_source(cfg).load().class_names) == CIFAR10_NAMES


def hydra_source(cfg: Any) -> Any:
    from hydra.utils import instantiate

    return instantiate(cfg.data.source, _convert_="all")


def test_a_checkpoint_of_the_first_format_is_loaded() -> None:
    run = cifar.load_run(ROOT / "tests" / "formats" / "1" / "checkpoint.pt", OWN)
    assert len(run.class_names) == run.predict(np.zeros((32, 32, 3), dtype=np.uint8)).probabilities.shape[1]


def test_code_that_only_the_checkpoint_names_is_not_called(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model._target_=tests.tiny_model.tiny. Nothing was called"):
        cifar.load_run(folder)
    assert cifar.load_run(folder, config_dir=ROOT / "tests" / "conf").class_names == run_numbers()
    marker = tmp_path / "called"
    evil = {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": [str(marker)]}]}
    for model in (evil, {"_target_": "tests.tiny_model.tiny", "dropout": evil}):
        path = rewritten(folder, tmp_path / "evil.pt", config=config_with(folder, "model", **model))
        with pytest.raises(UserError, match="Nothing was called"):
            cifar.load_run(path, OWN)
    path = rewritten(folder, tmp_path / "evil.pt", config=config_with(folder, "data", source=evil))
    run = cifar.load_run(path, OWN)  # which needs no data
    with pytest.raises(UserError, match="Nothing was called"):
        run.test_set()
    path = rewritten(folder, tmp_path / "evil.pt", config=config_with(folder, "model", _target_="torch.optim.Adam"))
    with pytest.raises(UserError):
        cifar.load_run(path)
    assert not marker.exists()


def test_stored_text_reads_nothing_of_the_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "0.5")
    path = rewritten(folder, tmp_path / "s.pt", config=config_with(folder, "tracker", note="${oc.env:SECRET}"))
    assert cifar.load_run(path, OWN).config["tracker"]["note"] == "${oc.env:SECRET}"


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"config": None}, "weights but no run"),
        ({"format_version": 99}, "later version"),
        ({"config": {"model": 3}}, "configuration that is none"),
        ({"image_size": [10**9, 10**9]}, "image_size"),
        ({"model": {}}, "does not fit"),
    ],
)
def test_what_is_no_run_is_one_message(folder: Path, tmp_path: Path, parts: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        cifar.load_run(rewritten(folder, tmp_path / "odd.pt", **parts), OWN)


def test_words_change_how_it_is_evaluated_and_nothing_else(folder: Path) -> None:
    run = cifar.load_run(folder, [*OWN, "data.test_limit=7", "device=plain", "tta=none"])
    assert len(run.test_set().test_images) == 7
    assert run.device.precision == "fp32"
    for word, problem in {
        "lr=0.1": "lr=0.1 can't be given",
        "tta=six": "tta=six",
        "data=digits": "data=digits",
    }.items():
        with pytest.raises(UserError, match=problem):
            cifar.load_run(folder, [*OWN, word])


def test_nothing_global_is_changed(folder: Path) -> None:
    def state() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        settings = (torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.is_grad_enabled())
        return handlers, [*logging.getLogger().handlers], os.getcwd(), [*sys.argv], settings

    before, seed = state(), torch.get_rng_state()
    torch.set_num_threads(1)
    before = state()
    cifar.load_run(folder, OWN).predict(np.zeros((32, 32, 3), dtype=np.uint8))
    assert state() == before
    assert torch.equal(torch.get_rng_state(), seed)

"""`cifar predict`: the evaluation's numbers for the test images as files, and every broken file named."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cifar
from cifar.commands import predict
from tests.conftest import QUIET
from tests.in_process import exit_of

OWN = "model._target_=tests.tiny_model.tiny"
NUM_IMAGES = 200


def call(*words: str) -> int | str | None:
    """Call the verb in this process; return what it exits with."""
    return exit_of(predict.command, "predict", *words)


@pytest.fixture(autouse=True)
def _own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cifar predict"])


def write_pictures(images: Tensor, folder: Path) -> None:
    """Write images (N, 3, H, W) as 0000.png, 0001.png, …"""
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:04}.png")


def compare_with_the_evaluation(folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Predict a run's test images, as files, and compare with what it said when it was tested."""
    write_pictures(cifar.load_run(folder, words).test_set().test_images, pictures)
    capsys.readouterr()
    assert call(str(folder), str(pictures), "--json", "--top", "1", *words) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stored = cifar.load_run(folder, words).predictions
    assert len(found) == len(stored["labels"]) == NUM_IMAGES
    assert [entry["path"] for entry in found] == sorted(entry["path"] for entry in found)
    probabilities = np.array([entry["classes"][0]["probability"] for entry in found], dtype=np.float32)
    np.testing.assert_array_equal(probabilities, stored["confidence"])
    names = cifar.load_run(folder, words).class_names
    assert [entry["classes"][0]["name"] for entry in found] == [names[index] for index in stored["predicted"]]


def test_noise_as_files_has_the_evaluations_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = cifar.compose([*QUIET, f"data.source.num_test={NUM_IMAGES}", "eval_batch_size=100"])
    cifar.train(cfg, tmp_path / "run")
    compare_with_the_evaluation(tmp_path / "run", tmp_path / "pictures", capsys, OWN)


def test_cifar_10_as_files_has_the_evaluations_numbers(
    tmp_path: Path, cifar10_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=speednet", "model.widths=[8,8,8]", "data.limit=500", "tracker=none", "device=cpu"]
    words += [f"data.root={cifar10_root}", f"data.test_limit={NUM_IMAGES}", "eval_batch_size=100"]
    cifar.train(cifar.compose(words), tmp_path / "run")
    compare_with_the_evaluation(tmp_path / "run", tmp_path / "pictures", capsys, f"data.root={cifar10_root}")


def test_broken_files_are_named_and_the_rest_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cifar.train(cifar.compose([*QUIET]), tmp_path / "run")
    write_pictures(torch.zeros((2, 3, 40, 70), dtype=torch.uint8), tmp_path / "pictures")
    (tmp_path / "pictures" / "0000a.png").write_text("no picture")
    run, pictures = str(tmp_path / "run"), str(tmp_path / "pictures")
    capsys.readouterr()
    assert call(run, pictures, OWN) == "1 of 3 pictures could not be read."
    output, errors = capsys.readouterr()
    assert [line.split()[0] for line in output.splitlines()] == [f"{pictures}/0000.png", f"{pictures}/0001.png"]
    assert all(line.count(" %") == 3 for line in output.splitlines())
    assert errors.startswith(f"{pictures}/0000a.png: it is no picture")
    assert call(run, "--json", pictures, "tta=mirror", OWN) == "1 of 3 pictures could not be read."
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in entry for entry in found] == [False, True, False]
    for words, problem in (
        ([run, str(tmp_path / "absent.png"), OWN], "1 of 1 pictures could not be read."),
        ([run, str(tmp_path / "run"), OWN], "There is no picture in"),
        ([run, pictures], "Nothing was called"),
        ([str(tmp_path), pictures, OWN], "holds 1 runs"),
    ):
        assert problem in str(call(*words))

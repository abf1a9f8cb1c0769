"""`cifar compare`: the test of two runs from what they have kept, with pictures where the images are to be had."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

import cifar
from cifar.commands import compare
from cifar.tracking.answers import read_predictions
from tests.browser import CHROMIUM, browser
from tests.conftest import QUIET, read_summary
from tests.in_process import exit_of

OWN = "model._target_=tests.tiny_model.tiny"


def call(*words: str) -> int | str | None:
    """Call the verb in this process; return what it exits with."""
    return exit_of(compare.command, "compare", *words)


@pytest.fixture(name="runs", scope="module")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs that differ in their seed, and one that was tested on fewer images."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in {"a": ["seed=1"], "b": ["seed=2"], "fewer": ["data.test_limit=20"]}.items():
        cifar.train(cifar.compose([*QUIET, "data.source.num_test=200", "epochs=3", "lr=0.03", *words]), folder / name)
    return folder


def test_it_says_what_the_binomial_test_says(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(str(runs / "a"), str(runs / "b"), "--output", str(tmp_path / "out"), OWN) == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    first, second = (read_predictions(runs / name / "predictions.npz") for name in "ab")
    right = first.labels == first.predicted, second.labels == second.predicted
    assert sorted(found["only_first_right"]) == np.flatnonzero(right[0] & ~right[1]).tolist()
    assert sorted(found["only_second_right"]) == np.flatnonzero(right[1] & ~right[0]).tolist()
    counts = len(found["only_first_right"]), len(found["only_second_right"])
    assert min(counts) > 0
    assert found["p_value"] == pytest.approx(binomtest(counts[0], sum(counts), 0.5).pvalue)
    assert found["accuracies"] == [read_summary(runs / name)["test_accuracy"] for name in "ab"]
    assert found["difference"] == pytest.approx(found["accuracies"][0] - found["accuracies"][1])
    low, high = found["difference_interval"]
    assert low < found["difference"] < high
    output = capsys.readouterr().out
    assert f"p = {found['p_value']:.2g} (mid-p {found['mid_p_value']:.2g})" in output
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count('src="data:image/png') == min(24, counts[0]) + min(24, counts[1])


def test_without_the_images_there_are_no_pictures(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        shutil.copy(runs / name / "predictions.npz", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert call("a", "b") == 0
    assert "There are no pictures" in capsys.readouterr().out
    (page,) = tmp_path.glob("compare-*/compare.html")
    assert "There are no pictures" in page.read_text()


def test_what_can_not_be_compared_is_one_message(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, problem in (
        (["a", "fewer"], "were not tested on the same images: 200 and 20"),
        (["a"], "two runs, not 1"),
        (["a", "absent"], "To make it: cifar evaluate"),
    ):
        assert problem in str(call(*(str(runs / word) for word in words), "--output", str(tmp_path / "o")))
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(str(runs / "a"), str(runs / "b"), "--output", str(tmp_path / "out"), OWN) == 0
    with browser(tmp_path / "profile") as page:
        for width in (1440, 390):
            page.open(tmp_path / "out" / "compare.html", width)
            assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("[...document.images].every(image => image.naturalWidth === 32)")
        assert page.errors == []

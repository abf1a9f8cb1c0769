"""The page of one run: made at its end, whatever happens to it, and again by `cifar evaluate`."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import cifar
from cifar.base.errors import DivergedError
from cifar.commands import evaluate
from cifar.reports.findings.classification import facts
from cifar.reports.report import report
from cifar.tracking.answers import read_predictions
from tests.browser import CHROMIUM, browser
from tests.conftest import QUIET, read_metrics, read_summary

OWN = "model._target_=tests.tiny_model.tiny"
WORDS = [word for word in QUIET if word != "page=false"] + ["data.val_size=20", "epochs=2"]
STEMS = ("run_curves", "confusion", "class_accuracy", "reliability")


@pytest.fixture(name="sweep", scope="module")
def _sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one run, "0", that has a page."""
    folder = tmp_path_factory.mktemp("pages")
    cifar.train(cifar.compose([*WORDS, "tta=mirror"]), folder / "0")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """Call `cifar evaluate` in this process; return what it exits with."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["cifar evaluate", *words])
    try:
        evaluate.command()
    except SystemExit as end:
        return end.code
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
    return 0


def test_a_run_ends_with_its_page(sweep: Path) -> None:
    folder = sweep / "0"
    assert {path.name for path in (folder / "figures").iterdir()} == {f"{stem}.{kind}" for stem in STEMS
                                                                      for kind in ("png", "svg")}  # fmt: skip
    found = json.loads((folder / "evaluation.json").read_text())
    stored, summary = read_predictions(folder / "predictions.npz"), read_summary(folder)
    assert found["nll"] == pytest.approx(summary["test_loss"], rel=1e-5)
    assert found["accuracy"] == summary["test_accuracy"]
    assert found["tta_accuracy"] == summary["test_tta_accuracy"]
    assert found["confusion"] == facts(stored)["confusion"]
    page = (folder / "run.html").read_text()
    low, high = found["accuracy_interval"]
    assert f"({100 * low:.2f}–{100 * high:.2f})" in page
    assert page.count('src="data:image/png') == min(24, int((stored.labels != stored.predicted).sum())) + 30
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)


def test_the_page_changes_no_number_and_no_hash(sweep: Path, tmp_path: Path) -> None:
    cifar.train(cifar.compose([*WORDS, "tta=mirror", "page=false"]), tmp_path / "without")
    assert not (tmp_path / "without" / "run.html").exists()
    plain, paged = ([{key: value for key, value in entry.items() if "second" not in key} for entry in read_metrics(run)]
                    for run in (tmp_path / "without", sweep / "0"))  # fmt: skip
    assert plain == paged
    hashes = {read_summary(run)[key] for run in (tmp_path / "without", sweep / "0") for key in ("config_hash",)}
    assert len(hashes) == 1


def test_a_page_that_fails_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("cifar.reports.files.run_page.write_run_page", fail)
    summary = cifar.train(cifar.compose(WORDS), tmp_path / "run")
    assert summary["status"] == "completed"
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "RuntimeError: no ink" in warning
    assert "cifar evaluate" in warning


def test_a_diverged_run_has_a_page_too(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        cifar.train(cifar.compose([*WORDS, "lr=1e30", "optimizer=sgd"]), tmp_path / "run")
    assert read_summary(tmp_path / "run")["status"] == "diverged"
    assert "The run diverged" in (tmp_path / "run" / "run.html").read_text()


def test_the_report_on_a_sweep_leads_to_the_page(sweep: Path, tmp_path: Path) -> None:
    report([sweep], tmp_path)
    link = re.findall(r'href="([^"]*run\.html)"', (tmp_path / "report.html").read_text())
    assert [(tmp_path / path).resolve() for path in link] == [(sweep / "0" / "run.html").resolve()]


def test_evaluating_again_gives_the_same(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep / "0"
    names = ("run.html", "evaluation.json", "predictions.npz")
    before = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    assert call(monkeypatch, str(folder), OWN) == 0
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert f"{100 * read_summary(folder)['test_accuracy']:.2f} %" in capsys.readouterr().out


def test_other_words_go_to_a_folder_of_their_own(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep / "0"
    before = (folder / "predictions.npz").read_bytes()
    assert call(monkeypatch, str(folder), OWN, "tta=mirror") == 0
    found = json.loads((folder / "evaluation-tta=mirror" / "evaluation.json").read_text())
    assert found["accuracy"] == read_summary(folder)["test_tta_accuracy"]
    assert found["tta"] == "mirror"
    run = cifar.load_run(folder, [OWN])
    mirrored = run.predict(run.test_set().test_images, tta="mirror").probabilities
    stored = read_predictions(folder / "evaluation-tta=mirror" / "predictions.npz")
    np.testing.assert_array_equal(stored.confidence, mirrored.max(axis=1))
    assert (folder / "predictions.npz").read_bytes() == before
    assert "takes one run" in str(call(monkeypatch, str(folder), "another", OWN))
    assert "can't be given" in str(call(monkeypatch, str(folder), "epochs=3", OWN))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser(sweep: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        for width in (1440, 390):
            for is_dark in (False, True):
                page.open(sweep / "0" / "run.html", width, is_dark)
                assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("document.querySelectorAll('#curves canvas').length") == 3
        assert page.evaluate("[...document.images].every(image => image.naturalWidth === 32)")
        names = page.evaluate("[...document.querySelectorAll('#legend button')].map(button => button.textContent)")
        assert names == ["training", "validation", "learning rate"]
        page.evaluate("document.querySelector('#legend button').click()")
        pressed = "[...document.querySelectorAll('#legend button')].map(button => button.getAttribute('aria-pressed'))"
        assert page.evaluate(pressed) == ["false", "true", "true"]
        page.evaluate("document.querySelector('.copy').click()")
        page.wait_for("document.querySelector('.copy').textContent === 'copied'")
        assert page.errors == []

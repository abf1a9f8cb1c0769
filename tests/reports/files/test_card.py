"""A model card: every number recomputed from the run's files, and one message where a card can't be true."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

import cifar
from cifar.base.errors import UserError
from cifar.commands import card
from cifar.reports.files.card import card_text
from cifar.reports.findings.card import read_card, shown_time
from tests.conftest import QUIET, read_summary
from tests.in_process import exit_of


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run with validation images and test-time augmentation."""
    folder = tmp_path_factory.mktemp("card") / "run"
    cifar.train(cifar.compose([*QUIET, "data.val_size=20", "data.source.num_test=100", "tta=mirror"]), folder)
    return folder


def text_of(folder: Path, **options: Any) -> str:
    return card_text(read_card(folder, **options))


def wilson(count: int, total: int) -> str:
    """Return the interval as the card has it, by scipy."""
    found = binomtest(count, total).proportion_ci(method="wilson")
    return f"{100 * found.low:.2f}–{100 * found.high:.2f} %"


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of all tables by their first."""
    found = re.findall(r"^\| (.*) \|$", text, flags=re.M)
    return {cells[0]: cells[1:] for cells in (line.split(" | ") for line in found)}


def test_the_accuracies_and_intervals_are_those_of_the_files(folder: Path) -> None:
    summary, table = read_summary(folder), rows(text_of(folder))
    expected = {
        "test images": ("test_accuracy", 100),
        "test images, test-time augmentation mirror": ("test_tta_accuracy", 100),
        "validation images, held out of the training set": ("val_accuracy", 20),
    }
    for name, (key, total) in expected.items():
        count = round(summary[key] * total)
        assert summary[key] == pytest.approx(count / total, abs=1e-12)
        assert table[name] == [str(total), f"{100 * count / total:.2f} %", wilson(count, total)]
    with np.load(folder / "predictions.npz") as stored:
        labels, predicted = stored["labels"], stored["predicted"]
    for label in range(10):
        total, count = int((labels == label).sum()), int(((labels == label) & (predicted == label)).sum())
        assert table[str(label)] == [str(total), f"{100 * count / total:.2f} %", wilson(count, total)]


def test_calibration_is_that_of_the_probabilities(folder: Path) -> None:
    run = cifar.load_run(folder, ["model._target_=tests.tiny_model.tiny"])
    test = run.test_set()
    probabilities = run.probabilities(test.test_images).numpy().astype(np.float64)
    labels = test.test_labels.numpy()
    truth = np.eye(10)[labels]
    nll = -np.log(probabilities[np.arange(100), labels]).mean()
    brier = ((probabilities - truth) ** 2).sum(axis=1).mean()
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ece = sum(
        abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
        for place in range(15)
        if (inside := (confidence > place / 15) & (confidence <= (place + 1) / 15)).any()
    )
    found = re.search(r"log-likelihood ([\d.]+), Brier score ([\d.]+), .* error ([\d.]+) %", text_of(folder))
    assert found
    assert [float(number) for number in found.groups()] == pytest.approx([nll, brier, 100 * ece], abs=6e-3)


def test_the_head_is_what_hubs_read(folder: Path) -> None:
    start, head, _ = text_of(folder, name="a: name", license="cc-by-4.0").split("---\n", 2)
    assert not start
    content = yaml.safe_load(head)
    assert content["license"] == "cc-by-4.0"
    assert content["metrics"] == ["accuracy"]
    assert content["pipeline_tag"] == "image-classification"
    ((result,), name) = content["model-index"][0]["results"], content["model-index"][0]["name"]
    assert name == "a: name"
    summary = read_summary(folder)
    assert [metric["value"] for metric in result["metrics"]] == [summary["test_accuracy"], summary["test_tta_accuracy"]]
    assert result["dataset"] == {"name": "random noise", "type": "randomimages", "split": "test"}
    assert "datasets" not in content  # hubs know no noise
    assert "license" not in yaml.safe_load(text_of(folder).split("---\n", 2)[1])
    assert "No licence is stated" in text_of(folder)


def test_the_configuration_hardware_and_command_are_the_summarys(folder: Path) -> None:
    text, summary = text_of(folder), read_summary(folder)
    table = rows(text)
    assert table["lr"] == [str(summary["config"]["lr"])]
    assert table["data.val_size"] == ["20"]
    assert f"{summary['num_parameters']:,} parameters" in text
    assert f"{summary['steps']} steps, {summary['images_per_second']:,.0f} images/s" in text
    assert summary["config_hash"] in text
    assert summary["versions"]["torch"] in text
    assert "32×32 pixels" in text
    assert "20 validation images were held out" in text
    assert str(folder) not in re.sub(r"^cifar run .*$", "", text, flags=re.M)  # the command stands as it is
    assert """cifar.load_run("checkpoint.pt", ['model._target_=tests.tiny_model.tiny'])""" in text


def changed(folder: Path, path: Path, **values: Any) -> Path:
    """Copy the run's folder with other values in its summary, None for those that it then lacks."""
    shutil.copytree(folder, path)
    summary = {key: value for key, value in (read_summary(folder) | values).items() if value is not None}
    (path / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"status": "diverged", "error": "It diverged."}, r"diverged \(It diverged\.\): only a run that completed"),
        ({"status": "running"}, "is running"),
        ({"test_accuracy": None}, "lacks test_accuracy"),
        ({"test_accuracy": 0.999}, "are of different runs"),
        ({"test_accuracy": "good"}, "no run writes such test_accuracy"),
        ({"config": {"seed": "x"}}, r"no run has seed='x'"),
    ],
)
def test_a_wrong_summary_is_one_message(folder: Path, tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        text_of(changed(folder, tmp_path / "run", **values))


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, tmp_path / "run")
    (path / "checkpoint.pt").unlink()
    assert "32×32" not in text_of(path)  # which only the checkpoint knows
    (path / "predictions.npz").unlink()
    with pytest.raises(UserError, match=r"predictions\.npz is missing"):
        text_of(path)
    (path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json can't be read"):
        text_of(path)
    (path / "summary.json").unlink()
    with pytest.raises(UserError, match=r"summary\.json is missing"):
        text_of(path)


def call(*words: str) -> int | str | None:
    """Call the verb in this process; return what it exits with."""
    return exit_of(card.command, "card", *words)


def test_the_command_writes_a_file_and_none_over_another(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (str(folder), "--output", "new/README.md", "--name", "mine", "--license", "mit")
    assert call(*words) == 0
    assert capsys.readouterr().out == "The card: new/README.md\n"
    path = tmp_path / "new" / "README.md"
    assert path.read_text() == text_of(folder, name="mine", license="mit")
    path.write_text("edited")
    assert str(call(*words)).startswith("new/README.md exists")
    assert path.read_text() == "edited"
    assert call(*words, "--force") == 0
    assert path.read_text() != "edited"
    assert "no checkpoint.pt" in str(call(str(tmp_path / "new")))
    assert "no such file" in str(call(str(tmp_path / "nowhere")))


def test_times_are_in_words() -> None:
    assert [shown_time(seconds) for seconds in (0.5, 59, 1071, 7260)] == ["0.5 s", "59 s", "17 min 51 s", "2 h 1 min"]
